"""This project's five networks in PyTorch. They map images [B, 3, H, W] to logits [B, channels, H, W].

Unlike the networks in `core.models`, these networks do not scale the values of the images. NETWORKS holds a
function (filters, channels) -> `nn.Module` for each network. filters: the number of channels of each level,
from the finest to the coarsest; for mobilenet_unet, of each decoder level. channels: the number of logits per
pixel.

This module imports nothing of this project, because it runs with a Python interpreter that has PyTorch but
may lack TensorFlow.
"""

import torch
from torch import nn
from torch.nn import functional

# groups of consecutive blocks in MobileNetV2: (output channels, number of blocks, stride of the first block)
RUNS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def parameter_counts(model):
    """Return [number of trained parameters, number of all parameters] of an `nn.Module`.

    The second number includes the moving averages of batch normalisation.
    """
    trained = [each for each in model.parameters() if each.requires_grad]
    stored = [*model.parameters(), *(each for each in model.buffers() if each.dim())]
    return [sum(each.numel() for each in part) for part in (trained, stored)]


class Level(nn.Module):
    """A level of a U-Net together with all coarser levels: [B, in_channels, H, W] -> [B, filters[0], H, W].

    filters: the number of channels of this level and of each coarser level.
    conv: a function (in_channels, out_channels) -> list of layers, a convolution and the layers after it.
    up: a function (in_channels, out_channels) -> list of layers that double the height and width.
    skip_drop: the dropout rate after pooling, and after the concatenation with the skip connection.
    pair_drop: two rates of the dropout between the two convolutions of a level. The first rate applies in the
    encoder. The second rate applies at the coarsest level and in the decoder.
    """

    def __init__(self, in_channels, filters, *, conv, up, skip_drop=0.0, pair_drop=(0.0, 0.0)):
        super().__init__()
        options = {"conv": conv, "up": up, "skip_drop": skip_drop, "pair_drop": pair_drop}
        (width, *below), (down_drop, drop) = filters, pair_drop

        def pair(in_channels, rate):  # rate: the rate of the dropout between the two convolutions
            return nn.Sequential(*conv(in_channels, width), nn.Dropout(rate), *conv(width, width))

        self.down = pair(in_channels, down_drop if below else drop)
        self.below = Level(width, below, **options) if below else None
        if below:
            self.drop = nn.Dropout(skip_drop)
            self.up = nn.Sequential(*up(below[0], width))
            # If self.up has a transposed convolution, `changed` holds the number of its output channels. If
            # self.up has nn.Upsample instead, `changed` is empty, and the number of channels stays below[0].
            changed = [layer.out_channels for layer in self.up if isinstance(layer, nn.ConvTranspose2d)]
            self.merge = pair(width + (changed or below)[0], drop)

    def forward(self, x):
        x = self.down(x)
        if self.below is None:
            return x
        low = self.below(self.drop(functional.max_pool2d(x, 2)))
        return self.merge(self.drop(torch.cat([self.up(low), x], dim=1)))


class MobileNetUNet(nn.Module):
    """The U-Net with a MobileNetV2 encoder. The encoder's weights and moving averages are frozen."""

    def __init__(self, filters, channels):
        super().__init__()
        blocks, ups, in_channels = [], [], 32
        for width, count, first in RUNS:
            for stride in (first, *[1] * (count - 1)):
                blocks.append(Block(in_channels, width, stride, expand=bool(blocks), last=width == 320))
                in_channels = width
        stem = nn.Sequential(*layers(conv(3, stride=2, bias=False), batch_norm, relu6)(3, 32))
        self.encoder = nn.ModuleList([stem, *blocks]).requires_grad_(False)
        for width, skip in zip(filters[::-1], (576, 192, 144, 96)):
            up = layers(transposed(3, bias=False), batch_norm, relu)
            ups.append(nn.Sequential(*up(in_channels, width)))
            in_channels = width + skip
        self.ups, self.logits = nn.ModuleList(ups), transposed(3)(in_channels, channels)

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()  # a frozen encoder always uses the moving averages
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
    """An inverted residual block of MobileNetV2.

    Maps [B, in_channels, H, W] to two feature maps: the expanded map [B, 6 * in_channels, H, W], and the
    output [B, width, H / stride, W / stride]. The skip connections of the U-Net are the expanded maps of the
    blocks with stride 2. expand: if False, the block has no expansion, and the expanded map is the
    block's input. last: if True, the block ends with a convolution, without batch normalisation after it.
    """

    def __init__(self, in_channels, width, stride, *, expand, last):
        super().__init__()
        wide = 6 * in_channels if expand else in_channels
        self.stride, self.residual = stride, stride == 1 and in_channels == width
        widen = layers(conv(1, bias=False), batch_norm, relu6)
        depthwise = layers(conv(3, stride=stride, groups=wide, bias=False), batch_norm, relu6)
        project = layers(conv(1, bias=False), *([] if last else [batch_norm]))
        self.expand = nn.Sequential(*(widen(in_channels, wide) if expand else []))
        self.project = nn.Sequential(*depthwise(wide, wide), *project(wide, width))

    def forward(self, x):
        expanded = self.expand(x)
        y = self.project(expanded)
        return expanded, x + y if self.residual else y


def unet(conv, up, *, bias=True, **drop):
    """Return a function (filters, channels) -> U-Net. The U-Net ends with a 1x1 convolution to the logits.

    conv, up: as in `Level`. drop: the dropout rates of `Level`. bias: whether the last layer has a bias.
    """

    def build(filters, channels):
        levels = Level(3, filters, conv=conv, up=up, **drop)
        return nn.Sequential(levels, nn.Conv2d(filters[0], channels, 1, bias=bias))

    return build


def layers(first, *others):
    """Return a function (in_channels, out_channels) -> list of layers.

    first: a function (in_channels, out_channels) -> layer. others: functions (channels) -> layer, for the
    layers that follow, such as an activation.
    """
    return lambda in_channels, width: [first(in_channels, width), *(other(width) for other in others)]


def conv(side=3, **options):
    """Return a function (in_channels, out_channels) -> convolution with a kernel of side x side pixels.

    options: further arguments of `nn.Conv2d`.
    """
    return lambda in_channels, width: nn.Conv2d(in_channels, width, side, padding=side // 2, **options)


def transposed(side, **options):
    """Return a function (in_channels, out_channels) -> transposed convolution of stride 2.

    The convolution doubles the height and width. side: 2 or 3; the kernel has side x side pixels. options:
    further arguments of `nn.ConvTranspose2d`.
    """
    options |= {"stride": 2, "padding": side % 2, "output_padding": side % 2}
    return lambda in_channels, width: nn.ConvTranspose2d(in_channels, width, side, **options)


def nearest(in_channels, width):
    return nn.Upsample(scale_factor=2)


def relu(width):
    return nn.ReLU(inplace=True)


def relu6(width):
    return nn.ReLU6(inplace=True)


def leaky(width):
    return nn.LeakyReLU(0.2, inplace=True)


def batch_norm(width):
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)  # Keras' defaults; momentum is 1 - Keras' 0.99


NETWORKS = {
    # The decoder of the road article has transposed convolutions of stride 1. Here they are convolutions,
    # because a transposed convolution of stride 1 equals a convolution with a flipped kernel.
    "road_unet": unet(layers(conv(bias=False), leaky), layers(nearest), bias=False),
    "pets_unet": unet(layers(conv(), relu), layers(transposed(3)), skip_drop=0.3),
    "labels_unet": unet(layers(conv(), relu, batch_norm), layers(transposed(2), relu, batch_norm)),
    "dubai_unet": unet(layers(conv(), relu), layers(transposed(2)), pair_drop=(0.1, 0.2)),
    "mobilenet_unet": MobileNetUNet,
}
