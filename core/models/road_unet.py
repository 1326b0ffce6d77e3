"""The U-Net of the road article: no biases, leaky ReLU, nearest-neighbour up.

Every level is two 3x3 convolutions. Going down a level halves the size, going
up doubles it and concatenates the skip of that level; a 1x1 convolution makes
the one logit, road against everything else.
"""

from core import ops
from core.weights import glorot_uniform

FILTERS = (16, 32, 64, 128, 256)  # the article's; the last is the bottleneck


def init_weights(*, seed, filters=FILTERS):
    """Glorot-uniform float32 kernels, name -> `tf.Variable`: 1,961,152 numbers."""
    shapes, channels = {}, 3
    for level, width in enumerate(filters):
        shapes[f"down{level}/conv1"] = (3, 3, channels, width)
        shapes[f"down{level}/conv2"] = (3, 3, width, width)
        channels = width
    for level, width in reversed(list(enumerate(filters[:-1]))):
        shapes[f"up{level}/conv1"] = (3, 3, width, channels + width)
        shapes[f"up{level}/conv2"] = (3, 3, width, width)
        channels = width
    shapes["logit"] = (1, 1, channels, 1)
    return {name: glorot_uniform(name, shape, seed=seed) for name, shape in shapes.items()}


def forward(weights, images, *, training=False, seed=None):
    """Logits [B, H, W, 1] of images [B, H, W, 3] with values 0..255.

    The images' dtype, float32, bfloat16 or float16, is that of the whole pass. H and W
    are multiples of 16: of 2 ** (levels - 1). Training changes nothing here:
    the article has neither dropout nor batch normalisation.
    """
    bottleneck = sum(name.startswith("up") for name in weights) // 2
    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(bottleneck + 1):
        if level:
            x = ops.maxpool_down(x)  # [B, H / 2^level, W / 2^level, F(level - 1)]
        x = ops.conv2d_down(x, weights[f"down{level}/conv1"])
        x = ops.conv2d_down(x, weights[f"down{level}/conv2"])
        skips.append(x)
    for level in reversed(range(bottleneck)):
        x = ops.maxpool_up_conv2d_up(x, skips[level], weights[f"up{level}/conv1"])
        x = ops.conv2d_up(x, weights[f"up{level}/conv2"])  # [B, H / 2^level, W / 2^level, F(level)]
    return ops.conv2d(x, weights["logit"])
