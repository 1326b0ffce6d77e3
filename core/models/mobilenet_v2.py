"""MobileNetV2 at width 1.0, as far as a U-Net takes it.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".
Layers have the names that `tf.keras.applications.MobileNetV2` gives them.
"""

import tensorflow as tf

from core import ops
from core.weights import batch_norm, glorot_uniform

# (channels, stride) of the blocks 0 to 16: the paper's table 2
BLOCKS = (
    *((16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1)),
)
EXPANSION = 6  # of every block but the first
TAPS = (1, 3, 6, 13)  # the blocks that halve the size next: what they expand to is a tap
TAP_CHANNELS = (96, 144, 192, 576, 320)  # of these and of the last projection, the fifth tap


def init_weights(*, seed, trainable):
    """Name -> `tf.Variable`, float32: 1,841,984 numbers, moving averages included.

    Glorot-uniform kernels, as Keras starts them. Nothing in it trains unless
    trainable. The last projection has no normalisation: its tap lies before that.
    """
    weights = {}

    def conv(name, shape):
        weights[f"{name}/kernel"] = glorot_uniform(f"{name}/kernel", shape, seed=seed)

    conv("Conv1", (3, 3, 3, 32))
    weights.update(batch_norm("bn_Conv1", 32))
    channels = 32
    for block, (width, _) in enumerate(BLOCKS):
        name, expanded = _name(block), channels * (EXPANSION if block else 1)
        if block:
            conv(f"{name}_expand", (1, 1, channels, expanded))
            weights.update(batch_norm(f"{name}_expand_BN", expanded))
        conv(f"{name}_depthwise", (3, 3, expanded, 1))
        weights.update(batch_norm(f"{name}_depthwise_BN", expanded))
        conv(f"{name}_project", (1, 1, expanded, width))
        if block < len(BLOCKS) - 1:
            weights.update(batch_norm(f"{name}_project_BN", width))
        channels = width
    if trainable:
        return weights
    return {name: tf.Variable(value, trainable=False, name=name) for name, value in weights.items()}


def forward(weights, x, *, training=False):
    """The five taps of images [B, H, W, 3] in -1..1: [B, H/2^k, W/2^k, TAP_CHANNELS[k - 1]].

    k is 1 to 5, and sizes are rounded up. SAME pads as Keras' explicit padding
    does, at even and at odd sizes. Training normalises by the batch and moves the
    averages; a layer that is not trainable is left as it is even then.
    """

    def normalised(name, x, op=ops.conv2d, stride=1):
        norm = "bn_Conv1" if name == "Conv1" else f"{name}_BN"
        gamma, *rest = (weights[f"{norm}/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        kernel = weights[f"{name}/kernel"]
        if training and gamma.trainable:
            x = op(x, kernel, stride=stride)
            return ops.batch_norm(x, gamma, *rest, training=True, momentum=0.999)
        return op(x, *ops.fold_batch_norm(kernel, gamma, *rest), stride=stride)

    taps = []
    x = tf.nn.relu6(normalised("Conv1", x, stride=2))  # [B, H/2, W/2, 32]
    for block, (width, stride) in enumerate(BLOCKS):
        name, residual = _name(block), x
        if block:
            x = tf.nn.relu6(normalised(f"{name}_expand", x))
        if block in TAPS:
            taps.append(x)
        x = tf.nn.relu6(normalised(f"{name}_depthwise", x, ops.depthwise_conv2d, stride))
        if block == len(BLOCKS) - 1:
            return [*taps, ops.conv2d(x, weights[f"{name}_project/kernel"])]
        x = normalised(f"{name}_project", x)  # [B, H/2^k, W/2^k, width]
        if (stride, width) == (1, residual.shape[-1]):
            x = x + residual


def _name(block):
    return f"block_{block}" if block else "expanded_conv"
