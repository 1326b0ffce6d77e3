"""The U-Net of the road article: no biases, leaky ReLU, nearest-neighbour up-sampling.

Each encoder level has two 3x3 convolutions. Max-pooling then halves height and width. Each decoder level
first doubles height and width by nearest-neighbour up-sampling, and concatenates the skip connection of the
level. Two 3x3 transposed convolutions of stride 1 follow. At the end, a 1x1 convolution computes the logits.
"""

import tensorflow as tf

from core import ops
from core.weights import glorot_uniform

FILTERS = (16, 32, 64, 128, 256)  # channels per level, from the article; the last level is the bottleneck
DEPTH = len(FILTERS) - 1  # number of max-poolings, each of which halves height and width


def init_weights(*, seed, filters=FILTERS, logits=1):
    """Return the initial kernels, name -> float32 `tf.Variable`: 1,961,152 parameters with one logit.

    Kernels are Glorot uniform. filters: channels per level. logits: the number of logits per pixel: one for
    each class or, with two classes, a single logit, as in the article.
    """
    shapes, channels = {}, 3
    for level, width in enumerate(filters):
        shapes[f"down{level}/conv1"] = (3, 3, channels, width)
        shapes[f"down{level}/conv2"] = (3, 3, width, width)
        channels = width
    for level, width in reversed(list(enumerate(filters[:-1]))):
        shapes[f"up{level}/conv1"] = (3, 3, width, channels + width)
        shapes[f"up{level}/conv2"] = (3, 3, width, width)
        channels = width
    shapes["logit"] = (1, 1, channels, logits)
    return {name: glorot_uniform(name, shape, seed=seed) for name, shape in shapes.items()}


def forward(weights, images, *, training=False, seed=None, depth=DEPTH):
    """Return the logits [B, H, W, L] of images [B, H, W, 3] with values 0..255. In the article, L is 1.

    The images are float32, bfloat16 or float16. All activations and the logits have the dtype of the images.
    H and W must be multiples of 2 ** depth. The network has neither dropout nor batch normalisation, so the
    arguments training and seed have no effect. depth: the number of max-poolings. It must be
    len(filters) - 1 for the `filters` of `init_weights`. F(level) in the comments is FILTERS[level].
    """
    skips, x = [], images / 255  # [B, H, W, 3] in 0..1
    for level in range(depth):
        x = ops.conv2d_down(x, weights[f"down{level}/conv1"])
        x = ops.conv2d_down(x, weights[f"down{level}/conv2"])
        skips.append(x)
        x = ops.maxpool_down(x)  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
    x = ops.conv2d_down(x, weights[f"down{depth}/conv1"])
    x = ops.conv2d_down(x, weights[f"down{depth}/conv2"])
    for level in reversed(range(depth)):
        x = ops.maxpool_up(x)  # [B, H / 2^level, W / 2^level, F(level + 1)]
        x = tf.concat([x, skips[level]], axis=-1)
        x = ops.conv2d_up(x, weights[f"up{level}/conv1"])
        x = ops.conv2d_up(x, weights[f"up{level}/conv2"])  # [B, H / 2^level, W / 2^level, F(level)]
    return ops.conv2d(x, weights["logit"])
