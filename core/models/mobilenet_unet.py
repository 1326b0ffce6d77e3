"""The U-Net of the TensorFlow segmentation tutorial: MobileNetV2 down, pix2pix up.

Going up a level is a 3x3 transposed convolution of stride 2, batch normalisation,
ReLU and the encoder's tap of that size; one more makes the logits.
"""

import tensorflow as tf

from core import ops
from core.models import mobilenet_v2
from core.weights import batch_norm, glorot_uniform, normal, zeros

FILTERS = (64, 128, 256, 512)  # of the decoder, the finest level first
DEVIATION = 0.02  # of its initial kernels, as in pix2pix (Isola et al. 2017)
ENCODER = "encoder/"


def init_weights(*, seed, classes, train_encoder=False):
    """Name -> `tf.Variable`, float32: 6,504,227 numbers for three classes.

    The encoder's 1,841,984 of them train only if train_encoder. Kernels of the
    last layer are Glorot uniform, Keras' default.
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
    """Those of the weights that are MobileNetV2's, by the names they have there."""
    return {
        name.removeprefix(ENCODER): variable for name, variable in weights.items() if name.startswith(ENCODER)
    }


def forward(weights, images, *, training=False, seed=None):
    """Logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images' dtype, float32, bfloat16 or float16, is that of the whole pass. H and W
    are multiples of 32. Training normalises by the batch and moves the averages,
    in the encoder only where that trains; nothing is random, so the seed is not used.
    """
    images = images / 128 - 1  # [B, H, W, 3] in -1..1
    *skips, x = mobilenet_v2.forward(encoder(weights), images, training=training)
    maps = [x]
    for level in reversed(range(len(FILTERS))):
        x = _up(maps, weights[f"up{level}/transpose/kernel"])
        parts = (weights[f"up{level}/norm/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        x = tf.nn.relu(ops.batch_norm(x, *parts, training=training))
        maps = [x, skips[level]]  # [B, H/2^(level+1), W/2^(level+1), F or skip]
    logits = _up(maps, weights["logits/kernel"])
    return tf.nn.bias_add(logits, tf.cast(weights["logits/bias"], logits.dtype))


def _up(maps, kernel):
    """`ops.conv2d_transpose`, stride 2, of maps [B, H, W, *] side by side, as the sum of one of each.

    Their concatenation would have one gradient, of which the part of the encoder's taps is
    for nothing while that is frozen: 14 % of a training step in float32.
    """
    kernels = tf.split(kernel, [each.shape[-1] for each in maps], axis=-1)
    return tf.add_n([ops.conv2d_transpose(each, part, stride=2) for each, part in zip(maps, kernels)])
