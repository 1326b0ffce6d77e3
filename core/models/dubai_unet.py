"""The U-Net of the aerial article: small, with dropout inside each pair.

Every level is two 3x3 convolutions with ReLU and dropout between them. Down:
max-pooling. Up: a 2x2 transposed convolution of stride 2, the skip.
"""

import tensorflow as tf

from core import ops
from core.models import pets_unet

FILTERS = (16, 32, 64, 128, 160)  # the article's; the last is the bottleneck
DROPOUT_DOWN = 0.1
DROPOUT_UP = 0.2  # and in the bottleneck


def init_weights(*, seed, classes, filters=FILTERS):
    """As the pets' U-Net, transposed kernels 2x2: 1,421,830 numbers for six classes."""
    return pets_unet.init_weights(seed=seed, classes=classes, filters=filters, up_side=2)


def forward(weights, images, *, training=False, seed=None):
    """Logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images' dtype, float32, bfloat16 or float16, is that of the whole pass. H and W
    are multiples of 16: of 2 ** (levels - 1). seed: int [2], decides the dropout
    when training; without one, nothing is dropped.
    """

    def kernel_and_bias(name):
        return weights[f"{name}/kernel"], weights[f"{name}/bias"]

    def pair(name, x, rate, layer):
        """What follows a level's first convolution."""
        x = ops.dropout(tf.nn.relu(x), rate, seed if training else None, layer)
        return tf.nn.relu(ops.conv2d(x, *kernel_and_bias(f"{name}/conv2")))

    bottleneck = sum(name.endswith("transpose/kernel") for name in weights)
    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(bottleneck + 1):
        name, rate = f"down{level}", DROPOUT_DOWN if level < bottleneck else DROPOUT_UP
        if level:
            x = ops.maxpool_down(x)  # [B, H / 2^level, W / 2^level, F(level - 1)]
        x = pair(name, ops.conv2d(x, *kernel_and_bias(f"{name}/conv1")), rate, level)
        skips.append(x)
    for level in reversed(range(bottleneck)):
        up, conv1 = kernel_and_bias(f"up{level}/transpose"), kernel_and_bias(f"up{level}/conv1")
        x = ops.conv2d_transpose_conv2d(x, skips[level], *up, *conv1)
        x = pair(f"up{level}", x, DROPOUT_UP, bottleneck + 1 + level)  # [B, H / 2^level, W / 2^level, F]
    return ops.conv2d(x, *kernel_and_bias("logits"))
