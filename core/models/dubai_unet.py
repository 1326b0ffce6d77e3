"""The U-Net of the aerial article: small, with dropout inside each pair.

Every level is two 3x3 convolutions with ReLU and dropout between them. Down:
max-pooling. Up: a 2x2 transposed convolution of stride 2, the skip.
"""

import tensorflow as tf

from core import ops
from core.weights import glorot_uniform, he_normal, zeros

FILTERS = (16, 32, 64, 128, 160)  # the article's; the last is the bottleneck
DROPOUT_DOWN = 0.1
DROPOUT_UP = 0.2  # and in the bottleneck


def init_weights(*, seed, classes, filters=FILTERS):
    """Kernels and biases, name -> `tf.Variable`: 1,421,830 numbers for six classes.

    He normal in the pairs of convolutions; Glorot uniform, Keras' default, in the
    transposed ones and the last.
    """
    weights = {}

    def layer(name, shape, channels, init):
        weights[f"{name}/kernel"] = init(f"{name}/kernel", shape, seed=seed)
        weights[f"{name}/bias"] = zeros(f"{name}/bias", channels)

    channels = 3
    for level, width in enumerate(filters):
        layer(f"down{level}/conv1", (3, 3, channels, width), width, he_normal)
        layer(f"down{level}/conv2", (3, 3, width, width), width, he_normal)
        channels = width
    for level, width in reversed(list(enumerate(filters[:-1]))):
        layer(f"up{level}/transpose", (2, 2, width, channels), width, glorot_uniform)
        layer(f"up{level}/conv1", (3, 3, 2 * width, width), width, he_normal)
        layer(f"up{level}/conv2", (3, 3, width, width), width, he_normal)
        channels = width
    layer("logits", (1, 1, channels, classes), classes, glorot_uniform)
    return weights


def forward(weights, images, *, training=False, seed=None):
    """Logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images' dtype, float32 or bfloat16, is that of the whole pass. H and W
    are multiples of 16: of 2 ** (levels - 1). seed: int [2], decides the dropout
    when training; without one, nothing is dropped.
    """

    def conv(name, x):
        return tf.nn.relu(ops.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"]))

    def pair(name, x, rate, layer):
        x = ops.dropout(conv(f"{name}/conv1", x), rate, seed if training else None, layer)
        return conv(f"{name}/conv2", x)

    bottleneck = sum(name.endswith("transpose/kernel") for name in weights)
    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(bottleneck):
        skips.append(pair(f"down{level}", x, DROPOUT_DOWN, level))
        x = ops.maxpool_down(skips[level])  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
    x = pair(f"down{bottleneck}", x, DROPOUT_UP, bottleneck)
    for level in reversed(range(bottleneck)):
        name = f"up{level}/transpose"
        x = ops.conv2d_transpose(x, weights[f"{name}/kernel"], weights[f"{name}/bias"], stride=2)
        x = tf.concat([x, skips[level]], axis=-1)  # [B, H / 2^level, W / 2^level, 2 F(level)]
        x = pair(f"up{level}", x, DROPOUT_UP, bottleneck + 1 + level)
    return ops.conv2d(x, weights["logits/kernel"], weights["logits/bias"])
