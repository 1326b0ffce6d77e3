"""The five networks in PyTorch, and their turn: channels last, autocast to bfloat16, Adam.

Run by its path: its interpreter needs torch, and nothing of this project but `measurement`.
"""

import measurement
import torch
from torch import nn
from torch.nn import functional

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# MobileNetV2: channels, blocks of so many, stride of the first
RUNS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def measure(spec):
    """Figures of a step on one batch in memory; the median counts."""
    model = NETWORKS[spec.network](spec.filters, spec.channels)
    model = model.to(DEVICE, memory_format=torch.channels_last).train(spec.mode == "train")
    images = torch.rand(spec.batch_size, 3, *spec.size, device=DEVICE)
    images = images.to(memory_format=torch.channels_last)
    masks = torch.randint(0, max(2, spec.channels), (spec.batch_size, *spec.size), device=DEVICE)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained)
    cast = torch.autocast(DEVICE, torch.bfloat16, enabled=spec.precision == "bfloat16")

    def train():
        optimizer.zero_grad()
        with cast:
            logits = model(images)
        loss = cross_entropy(logits.float(), masks)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer():
        with torch.inference_mode(), cast:
            return model(images).sum().item()

    step = train if spec.mode == "train" else infer
    numbers = [*model.parameters(), *(each for each in model.buffers() if each.dim())]
    return {
        **measurement.steps(step, spec.batch_size, spec.seconds),
        "parameters": [sum(each.numel() for each in part) for part in (trained, numbers)],
        "versions": {"torch": torch.__version__},
    }


def cross_entropy(logits, masks):
    """Mean over the pixels: of a sigmoid where there is one channel, else of a softmax."""
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], masks.float())
    return functional.cross_entropy(logits, masks)


class Level(nn.Module):
    """Two convolutions, the levels below, two more: [B, I, H, W] -> [B, filters[0], H, W].

    conv, up: functions as `layers` makes; skip_drop: rate of dropout after
    pooling and after a skip; pair_drop: within a pair, on the way down and elsewhere.
    """

    def __init__(self, inside, filters, *, conv, up, skip_drop=0.0, pair_drop=(0.0, 0.0)):
        super().__init__()
        options = {"conv": conv, "up": up, "skip_drop": skip_drop, "pair_drop": pair_drop}
        (width, *below), (down_drop, drop) = filters, pair_drop

        def pair(inside, rate):
            return nn.Sequential(*conv(inside, width), nn.Dropout(rate), *conv(width, width))

        self.down = pair(inside, down_drop if below else drop)
        self.below = Level(width, below, **options) if below else None
        if below:
            self.drop = nn.Dropout(skip_drop)
            self.up = nn.Sequential(*up(below[0], width))
            grown = [layer.out_channels for layer in self.up if isinstance(layer, nn.ConvTranspose2d)]
            self.merge = pair(width + (grown or below)[0], drop)

    def forward(self, x):
        x = self.down(x)
        if self.below is None:
            return x
        low = self.below(self.drop(functional.max_pool2d(x, 2)))
        return self.merge(self.drop(torch.cat([self.up(low), x], dim=1)))


class MobileNetUNet(nn.Module):
    """[B, 3, H, W] -> [B, channels, H, W]; the encoder is frozen, its averages too."""

    def __init__(self, filters, channels):
        super().__init__()
        blocks, ups, inside = [], [], 32
        for width, count, first in RUNS:
            for stride in (first, *[1] * (count - 1)):
                blocks.append(Block(inside, width, stride, expand=bool(blocks), last=width == 320))
                inside = width
        stem = nn.Sequential(*layers(conv(3, stride=2, bias=False), batch_norm, relu6)(3, 32))
        self.encoder = nn.ModuleList([stem, *blocks]).requires_grad_(False)
        for width, skip in zip(filters[::-1], (576, 192, 144, 96)):
            up = layers(transposed(3, bias=False), batch_norm, relu)
            ups.append(nn.Sequential(*up(inside, width)))
            inside = width + skip
        self.ups, self.logits = nn.ModuleList(ups), transposed(3)(inside, channels)

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x):
        stem, *blocks = self.encoder
        x, skips = stem(x), []
        for block in blocks:
            expanded, x = block(x)
            if block.stride == 2:
                skips.append(expanded)
        for up, skip in zip(self.ups, reversed(skips)):
            x = torch.cat([up(x), skip], dim=1)
        return self.logits(x)


class Block(nn.Module):
    """An inverted residual: [B, I, H, W] -> what it expands to, [B, O, H / s, W / s]."""

    def __init__(self, inside, width, stride, *, expand, last):
        super().__init__()
        wide = 6 * inside if expand else inside
        self.stride, self.residual = stride, stride == 1 and inside == width
        widen = layers(conv(1, bias=False), batch_norm, relu6)
        depthwise = layers(conv(3, stride=stride, groups=wide, bias=False), batch_norm, relu6)
        project = layers(conv(1, bias=False), *([] if last else [batch_norm]))
        self.expand = nn.Sequential(*(widen(inside, wide) if expand else []))
        self.project = nn.Sequential(*depthwise(wide, wide), *project(wide, width))

    def forward(self, x):
        expanded = self.expand(x)
        y = self.project(expanded)
        return expanded, x + y if self.residual else y


def unet(conv, up, *, bias=True, **drop):
    """A function (filters, channels) -> the U-Net of such levels and a 1x1 convolution."""

    def build(filters, channels):
        levels = Level(3, filters, conv=conv, up=up, **drop)
        return nn.Sequential(levels, nn.Conv2d(filters[0], channels, 1, bias=bias))

    return build


def layers(first, *others):
    """A function (channels in, out) -> [first's layer of these, the others' of the latter]."""
    return lambda inside, width: [first(inside, width), *(other(width) for other in others)]


def conv(side=3, **options):
    return lambda inside, width: nn.Conv2d(inside, width, side, padding=side // 2, **options)


def transposed(side, **options):
    options |= {"stride": 2, "padding": side % 2, "output_padding": side % 2}
    return lambda inside, width: nn.ConvTranspose2d(inside, width, side, **options)


def nearest(inside, width):
    return nn.Upsample(scale_factor=2)


def relu(width):
    return nn.ReLU(inplace=True)


def relu6(width):
    return nn.ReLU6(inplace=True)


def leaky(width):
    return nn.LeakyReLU(0.2, inplace=True)


def batch_norm(width):
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


NETWORKS = {
    # its transposed convolutions of stride 1 equal convolutions
    "road_unet": unet(layers(conv(bias=False), leaky), layers(nearest), bias=False),
    "pets_unet": unet(layers(conv(), relu), layers(transposed(3)), skip_drop=0.3),
    "labels_unet": unet(layers(conv(), relu, batch_norm), layers(transposed(2), relu, batch_norm)),
    "dubai_unet": unet(layers(conv(), relu), layers(transposed(2)), pair_drop=(0.1, 0.2)),
    "mobilenet_unet": MobileNetUNet,
}


if __name__ == "__main__":
    measurement.take(measure)
