"""The U-Net of the Cityscapes article: batch normalisation after every ReLU.

Every level is two 3x3 convolutions; up is a 2x2 transposed convolution of stride
2. Each of them is followed by ReLU and then batch normalisation, in this order.
"""

import tensorflow as tf

from core import ops
from core.weights import batch_norm, glorot_uniform, zeros

FILTERS = (64, 128, 256, 512, 1024)  # the article's; the last is the bottleneck


def init_weights(*, seed, classes, filters=FILTERS):
    """Name -> `tf.Variable`: 31,061,282 numbers for 34 classes, moving averages included.

    Kernels are Glorot uniform.
    """
    weights = {}

    def layer(name, shape, channels):
        weights[f"{name}/kernel"] = glorot_uniform(f"{name}/kernel", shape, seed=seed)
        weights[f"{name}/bias"] = zeros(f"{name}/bias", channels)

    def normalised(name, shape, channels):
        layer(name, shape, channels)
        weights.update(batch_norm(f"{name}/norm", channels))

    channels = 3
    for level, width in enumerate(filters):
        normalised(f"down{level}/conv1", (3, 3, channels, width), width)
        normalised(f"down{level}/conv2", (3, 3, width, width), width)
        channels = width
    for level, width in reversed(list(enumerate(filters[:-1]))):
        normalised(f"up{level}/transpose", (2, 2, width, channels), width)
        normalised(f"up{level}/conv1", (3, 3, 2 * width, width), width)
        normalised(f"up{level}/conv2", (3, 3, width, width), width)
        channels = width
    layer("logits", (1, 1, channels, classes), classes)
    return weights


def forward(weights, images, *, training=False, seed=None):
    """Logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images' dtype, float32, bfloat16 or float16, is that of the whole pass. H and W
    are multiples of 16. Training normalises by the batch and moves the averages;
    nothing is random, so the seed is not used.
    """

    def kernel_and_bias(name):
        return weights[f"{name}/kernel"], weights[f"{name}/bias"]

    def normalise(name, x):
        parts = (weights[f"{name}/norm/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        return ops.batch_norm(tf.nn.relu(x), *parts, training=training)

    def pair(name, x):
        for conv in (f"{name}/conv1", f"{name}/conv2"):
            x = normalise(conv, ops.conv2d(x, *kernel_and_bias(conv)))
        return x

    bottleneck = sum(name.endswith("transpose/kernel") for name in weights)
    skips, x = [], (images - 127.5) / 127.5  # [B, H, W, 3] in -1..1
    for level in range(bottleneck + 1):
        if level:
            x = ops.maxpool_down(x)  # [B, H / 2^level, W / 2^level, F(level - 1)]
        x = pair(f"down{level}", x)
        skips.append(x)
    for level in reversed(range(bottleneck)):
        name = f"up{level}/transpose"
        x = normalise(name, ops.conv2d_transpose(x, *kernel_and_bias(name), stride=2))
        x = tf.concat([x, skips[level]], axis=-1)  # [B, H / 2^level, W / 2^level, 2 F(level)]
        x = pair(f"up{level}", x)
    return ops.conv2d(x, *kernel_and_bias("logits"))
