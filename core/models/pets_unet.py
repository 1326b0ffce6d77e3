"""The U-Net of the Oxford pets article, with dropout between the levels.

Each level has two 3x3 convolutions with ReLU. In the encoder, dropout follows each max-pooling. Each decoder
level begins with a 3x3 transposed convolution of stride 2. The output of this convolution is
concatenated with the skip connection, and dropout follows.
"""

import tensorflow as tf

from core import ops
from core.weights import glorot_uniform, he_normal, zeros

FILTERS = (64, 128, 256, 512, 1024)  # channels per level, from the article; the last level is the bottleneck
DEPTH = len(FILTERS) - 1  # number of max-poolings, each of which halves height and width
DROPOUT = 0.3  # dropout rate


def init_weights(*, seed, classes, filters=FILTERS):
    """Return the initial variables, name -> float32 `tf.Variable`: 34,513,475 parameters for three classes.

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
        layer(f"up{level}/transpose", (3, 3, width, channels), width, glorot_uniform)
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

    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(depth):
        x = conv(f"down{level}/conv1", x)
        x = conv(f"down{level}/conv2", x)
        skips.append(x)
        x = ops.maxpool_down(x)  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
        x = ops.dropout(x, DROPOUT, seed, level + 1)
    x = conv(f"down{depth}/conv1", x)
    x = conv(f"down{depth}/conv2", x)
    for level in reversed(range(depth)):
        up = f"up{level}/transpose"
        x = ops.conv2d_transpose(x, weights[f"{up}/kernel"], weights[f"{up}/bias"], stride=2)
        x = tf.concat([x, skips[level]], axis=-1)  # [B, H / 2^level, W / 2^level, 2 F(level)]
        x = ops.dropout(x, DROPOUT, seed, depth + 1 + level)
        x = conv(f"up{level}/conv1", x)
        x = conv(f"up{level}/conv2", x)  # [B, H / 2^level, W / 2^level, F(level)]
    return ops.conv2d(x, weights["logits/kernel"], weights["logits/bias"])
