"""The U-Net of the 34-class Cityscapes article: batch normalisation after every ReLU.

Each level has two 3x3 convolutions. The encoder uses max-pooling. The decoder uses 2x2 transposed
convolutions of stride 2 and skip connections. ReLU and then batch normalisation follow each convolution and
each transposed convolution. Only the last convolution, which computes the logits, has neither.
"""

import tensorflow as tf

from core import ops
from core.weights import batch_norm, glorot_uniform, zeros

FILTERS = (64, 128, 256, 512, 1024)  # channels per level, from the article; the last level is the bottleneck
DEPTH = len(FILTERS) - 1  # number of max-poolings, each of which halves height and width


def init_weights(*, seed, classes, filters=FILTERS):
    """Return the initial variables, name -> float32 `tf.Variable`: 31,061,282 parameters for 34 classes.

    The number of parameters includes the moving averages of batch normalisation. Kernels are Glorot uniform,
    biases are zero. filters: channels per level.
    """
    weights = {}

    def layer(name, shape, channels):  # shape: the kernel's shape. channels: the number of biases
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


def forward(weights, images, *, training=False, seed=None, depth=DEPTH):
    """Return the logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images are float32, bfloat16 or float16. All activations and the logits have the dtype of the images.
    H and W must be multiples of 2 ** depth. training: True makes batch normalisation use the batch's
    statistics and update the moving averages. seed: has no effect. depth: the number of max-poolings. It must
    be len(filters) - 1 for the `filters` of `init_weights`. F(level) in the comments is FILTERS[level].
    """

    def relu_norm(name, x):
        norm = (weights[f"{name}/norm/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        return ops.batch_norm(tf.nn.relu(x), *norm, training=training)

    def conv(name, x):
        return relu_norm(name, ops.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"]))

    skips, x = [], (images - 127.5) / 127.5  # [B, H, W, 3] in -1..1
    for level in range(depth):
        x = conv(f"down{level}/conv1", x)
        x = conv(f"down{level}/conv2", x)
        skips.append(x)
        x = ops.maxpool_down(x)  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
    x = conv(f"down{depth}/conv1", x)
    x = conv(f"down{depth}/conv2", x)
    for level in reversed(range(depth)):
        up = f"up{level}/transpose"
        x = ops.conv2d_transpose(x, weights[f"{up}/kernel"], weights[f"{up}/bias"], stride=2)
        x = tf.concat([relu_norm(up, x), skips[level]], axis=-1)  # [B, H / 2^level, W / 2^level, 2 F(level)]
        x = conv(f"up{level}/conv1", x)
        x = conv(f"up{level}/conv2", x)  # [B, H / 2^level, W / 2^level, F(level)]
    return ops.conv2d(x, weights["logits/kernel"], weights["logits/bias"])
