"""The U-Net of the article on aerial photos of Dubai: few channels, and dropout in each level.

Each level has two 3x3 convolutions with ReLU. Dropout lies between these two convolutions. The encoder uses
max-pooling. The decoder uses 2x2 transposed convolutions of stride 2 and skip connections.
"""

import tensorflow as tf

from core import ops
from core.weights import glorot_uniform, he_normal, zeros

FILTERS = (16, 32, 64, 128, 160)  # channels per level, from the article; the last level is the bottleneck
DEPTH = len(FILTERS) - 1  # number of max-poolings, each of which halves height and width
DROPOUT_DOWN = 0.1  # dropout rate in the encoder
DROPOUT_UP = 0.2  # dropout rate in the bottleneck and the decoder


def init_weights(*, seed, classes, filters=FILTERS):
    """Return the initial variables, name -> float32 `tf.Variable`: 1,421,830 parameters for six classes.

    The kernels of the 3x3 convolutions are He normal. The kernels of the transposed convolutions and of the
    1x1 convolution are Glorot uniform, the default of Keras. Biases are zero. filters: channels per level.
    """
    weights = {}

    def layer(name, shape, channels, init):  # shape: the kernel's shape. channels: the number of biases
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


def forward(weights, images, *, training=False, seed=None, depth=DEPTH):
    """Return the logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images are float32, bfloat16 or float16. All activations and the logits have the dtype of the images.
    H and W must be multiples of 2 ** depth. training: True enables dropout. seed: int64 [2], determines
    which values are dropped; without a seed there is no dropout. depth: the number of max-poolings. It must
    be len(filters) - 1 for the `filters` of `init_weights`. F(level) in the comments is FILTERS[level].
    """
    seed = seed if training else None

    def conv(name, x):
        return tf.nn.relu(ops.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"]))

    def pair(name, x, rate, layer):  # layer: the number of the dropout layer in the network
        x = conv(f"{name}/conv1", x)
        x = ops.dropout(x, rate, seed, layer)
        return conv(f"{name}/conv2", x)

    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(depth):
        x = pair(f"down{level}", x, DROPOUT_DOWN, level)
        skips.append(x)
        x = ops.maxpool_down(x)  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
    x = pair(f"down{depth}", x, DROPOUT_UP, depth)
    for level in reversed(range(depth)):
        up = f"up{level}/transpose"
        x = ops.conv2d_transpose(x, weights[f"{up}/kernel"], weights[f"{up}/bias"], stride=2)
        x = tf.concat([x, skips[level]], axis=-1)  # [B, H / 2^level, W / 2^level, 2 F(level)]
        x = pair(f"up{level}", x, DROPOUT_UP, depth + 1 + level)  # [B, H / 2^level, W / 2^level, F(level)]
    return ops.conv2d(x, weights["logits/kernel"], weights["logits/bias"])
