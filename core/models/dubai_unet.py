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

    def parts(name):
        return weights[f"{name}/kernel"], weights[f"{name}/bias"]

    def dropout(x, rate, layer):
        return ops.dropout(x, rate, seed if training else None, layer)

    def conv(name, x):
        return tf.nn.relu(ops.conv2d(x, *parts(name)))

    def pair(name, x, rate, layer):
        return conv(f"{name}/conv2", dropout(conv(f"{name}/conv1", x), rate, layer))

    bottleneck = sum(name.endswith("transpose/kernel") for name in weights)
    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(bottleneck):
        skips.append(pair(f"down{level}", x, DROPOUT_DOWN, level))
        x = ops.maxpool_down(skips[level])  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
    x = pair(f"down{bottleneck}", x, DROPOUT_UP, bottleneck)
    for level in reversed(range(bottleneck)):
        up, conv1 = parts(f"up{level}/transpose"), parts(f"up{level}/conv1")
        x = tf.nn.relu(ops.conv2d_transpose_conv2d(x, skips[level], *up, *conv1))
        x = dropout(x, DROPOUT_UP, bottleneck + 1 + level)
        x = conv(f"up{level}/conv2", x)  # [B, H / 2^level, W / 2^level, F(level)]
    return ops.conv2d(x, *parts("logits"))
