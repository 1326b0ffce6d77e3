"""MobileNetV2 at width 1.0 as the encoder of a U-Net. The last layer is the last projection convolution.

From Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks". Layers have the same names
as in `tf.keras.applications.MobileNetV2`.
"""

import tensorflow as tf

from core import ops
from core.weights import batch_norm, glorot_uniform

# (output channels, stride) of blocks 0 to 16, from table 2 of the paper
BLOCKS = (
    *((16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1)),
)
EXPANSION = 6  # ratio of expanded channels to input channels in all blocks except block 0
# Blocks of stride 2. The skip connections are the outputs of their expansion layers, after ReLU6.
TAPS = (1, 3, 6, 13)
TAP_CHANNELS = (96, 144, 192, 576, 320)  # channels of the four skip connections and of the encoder's output


def init_weights(*, seed, trainable, freeze_norm=False):
    """Return the initial variables, name -> float32 `tf.Variable`: 1,841,984 parameters in total.

    Kernels are Glorot uniform, as in Keras. trainable: False makes all variables non-trainable. freeze_norm:
    True makes gamma and beta of all batch normalisations non-trainable. `forward` does not update the moving
    averages of a batch normalisation with non-trainable gamma. No batch normalisation follows the last
    convolution.
    """
    weights = {}

    def conv(name, shape, norm, channels):  # norm: name of the batch normalisation that follows, or None
        weights[f"{name}/kernel"] = glorot_uniform(f"{name}/kernel", shape, seed=seed)
        weights.update(batch_norm(norm, channels) if norm else {})

    conv("Conv1", (3, 3, 3, 32), "bn_Conv1", 32)
    channels = 32
    for block, (width, _) in enumerate(BLOCKS):
        name, expanded = (f"block_{block}", EXPANSION * channels) if block else ("expanded_conv", channels)
        if block:
            conv(f"{name}_expand", (1, 1, channels, expanded), f"{name}_expand_BN", expanded)
        conv(f"{name}_depthwise", (3, 3, expanded, 1), f"{name}_depthwise_BN", expanded)
        is_last = block == len(BLOCKS) - 1
        conv(f"{name}_project", (1, 1, expanded, width), None if is_last else f"{name}_project_BN", width)
        channels = width
    frozen = {
        name: tf.Variable(value, trainable=False, name=name)
        for name, value in weights.items()
        if not trainable or (freeze_norm and not name.endswith("/kernel"))
    }
    return weights | frozen


def forward(weights, x, *, training=False):
    """Return five feature maps of images x [B, H, W, 3] in -1..1: four skip connections and the output.

    Map number k = 1..5 is [B, H/2^k, W/2^k, TAP_CHANNELS[k - 1]], sizes rounded up. training: True makes
    batch normalisation use the batch's statistics and update the moving averages. A batch normalisation with
    non-trainable gamma always uses the moving averages and does not change them.
    """

    def norm(name, x):
        gamma, *rest = (weights[f"{name}/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        return ops.batch_norm(x, gamma, *rest, training=training and gamma.trainable, momentum=0.999)

    taps = []
    x = ops.conv2d(x, weights["Conv1/kernel"], stride=2)  # [B, H/2, W/2, 32]
    x = norm("bn_Conv1", x)
    x = tf.nn.relu6(x)
    for block, (width, stride) in enumerate(BLOCKS):
        name, residual = f"block_{block}" if block else "expanded_conv", x
        if block:
            x = ops.conv2d(x, weights[f"{name}_expand/kernel"])
            x = norm(f"{name}_expand_BN", x)
            x = tf.nn.relu6(x)
        if block in TAPS:
            taps.append(x)
        x = ops.depthwise_conv2d(x, weights[f"{name}_depthwise/kernel"], stride=stride)
        x = norm(f"{name}_depthwise_BN", x)
        x = tf.nn.relu6(x)
        x = ops.conv2d(x, weights[f"{name}_project/kernel"])  # [B, H/2^k, W/2^k, width] after k strides of 2
        if block == len(BLOCKS) - 1:
            return [*taps, x]
        x = norm(f"{name}_project_BN", x)
        if (stride, width) == (1, residual.shape[-1]):
            x = x + residual
