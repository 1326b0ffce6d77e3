"""The U-Net of the Oxford pets article: dropout, and transposed convolutions up.

Every level is two 3x3 convolutions with ReLU. Down: max-pooling and dropout. Up:
a 3x3 transposed convolution of stride 2, the skip, dropout.
"""

import tensorflow as tf

from core import ops
from core.weights import glorot_uniform, he_normal, zeros

FILTERS = (64, 128, 256, 512, 1024)  # the article's; the last is the bottleneck
DROPOUT = 0.3


def init_weights(*, seed, classes, filters=FILTERS, up_side=3):
    """Kernels and biases, name -> `tf.Variable`: 34,513,475 numbers for three classes.

    He normal in the pairs of convolutions; Glorot uniform, Keras' default, in the
    last and in the transposed ones, up_side x up_side.
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
        layer(f"up{level}/transpose", (up_side, up_side, width, channels), width, glorot_uniform)
        layer(f"up{level}/conv1", (3, 3, 2 * width, width), width, he_normal)
        layer(f"up{level}/conv2", (3, 3, width, width), width, he_normal)
        channels = width
    layer("logits", (1, 1, channels, classes), classes, glorot_uniform)
    return weights


def forward(weights, images, *, training=False, seed=None):
    """Logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images' dtype, float32, bfloat16 or float16, is that of the whole pass. H and W
    are multiples of 16. seed: int [2], decides the dropout when training.
    """

    def conv(name, x):
        return tf.nn.relu(ops.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"]))

    def drop(x, layer):
        return ops.dropout(x, DROPOUT, seed, layer) if training else x

    bottleneck = sum(name.endswith("transpose/kernel") for name in weights)
    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(bottleneck + 1):
        if level:
            x = drop(ops.maxpool_down(x), level)  # [B, H / 2^level, W / 2^level, F(level - 1)]
        x = conv(f"down{level}/conv2", conv(f"down{level}/conv1", x))
        skips.append(x)
    for level in reversed(range(bottleneck)):
        name = f"up{level}/transpose"
        x = ops.conv2d_transpose(x, weights[f"{name}/kernel"], weights[f"{name}/bias"], stride=2)
        x = tf.concat([x, skips[level]], axis=-1)  # [B, H / 2^level, W / 2^level, 2 F(level)]
        x = drop(x, bottleneck + 1 + level)
        x = conv(f"up{level}/conv2", conv(f"up{level}/conv1", x))
    return ops.conv2d(x, weights["logits/kernel"], weights["logits/bias"])
