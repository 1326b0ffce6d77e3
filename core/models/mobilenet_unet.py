"""The U-Net of the TensorFlow segmentation tutorial: MobileNetV2 encoder, pix2pix decoder.

Each level of the decoder has a 3x3 transposed convolution of stride 2, batch normalisation,
ReLU, and the skip connection from the encoder. A last transposed convolution computes the
logits.
"""

import tensorflow as tf

from core import ops
from core.models import mobilenet_v2
from core.weights import batch_norm, glorot_uniform, normal, zeros

FILTERS = (64, 128, 256, 512)  # channels of the decoder's levels, from the finest
DEPTH = len(FILTERS)  # number of skip connections; the encoder halves the size once more
DEVIATION = 0.02  # standard deviation of the decoder's initial kernels, as in pix2pix (Isola et al. 2017)
ENCODER = "encoder/"


def init_weights(*, seed, classes, train_encoder=False):
    """Return name -> `tf.Variable`, float32: 6,504,227 parameters for three classes.

    1,841,984 of them belong to the encoder, which is trained only if train_encoder is true. The
    kernel of the last layer is Glorot uniform, Keras' default.
    """
    encoder = mobilenet_v2.init_weights(seed=seed, trainable=train_encoder)
    weights = {f"{ENCODER}{name}": variable for name, variable in encoder.items()}
    *skips, channels = mobilenet_v2.TAP_CHANNELS
    for level, width in reversed(list(enumerate(FILTERS))):
        name, shape = f"up{level}/transpose/kernel", (3, 3, width, channels)
        weights[name] = normal(name, shape, seed=seed, deviation=DEVIATION)
        weights.update(batch_norm(f"up{level}/norm", width))
        channels = width + skips[level]
    weights["logits/kernel"] = glorot_uniform("logits/kernel", (3, 3, classes, channels), seed=seed)
    weights["logits/bias"] = zeros("logits/bias", classes)
    return weights


def encoder(weights):
    """Return the encoder's variables, named as in `mobilenet_v2`."""
    return {
        name.removeprefix(ENCODER): variable for name, variable in weights.items() if name.startswith(ENCODER)
    }


def forward(weights, images, *, training=False, seed=None):
    """Return the logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The dtype of the images, float32, bfloat16 or float16, is the dtype of the whole pass. H and W
    are multiples of 32. In training, batch normalisation uses the statistics of the batch and
    updates the moving averages; in the encoder, only if the encoder is trained. Nothing is random,
    so the seed is not used.
    """
    variables = encoder(weights)
    *skips, x = mobilenet_v2.forward(variables, images / 128 - 1, training=training)  # input in -1..1
    if training and not any(variable.trainable for variable in variables.values()):
        *skips, x = map(tf.stop_gradient, [*skips, x])
    for level in reversed(range(DEPTH)):
        x = ops.conv2d_transpose(x, weights[f"up{level}/transpose/kernel"], stride=2)
        norm = (weights[f"up{level}/norm/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        x = ops.batch_norm(x, *norm, training=training)
        x = tf.nn.relu(x)  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
        x = tf.concat([x, skips[level]], axis=-1)
    return ops.conv2d_transpose(x, weights["logits/kernel"], weights["logits/bias"], stride=2)
