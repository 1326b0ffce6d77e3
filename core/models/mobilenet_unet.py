"""The U-Net of the TensorFlow segmentation tutorial: MobileNetV2 encoder, pix2pix decoder.

Each decoder level applies a 3x3 transposed convolution of stride 2, batch normalisation and ReLU, and then
concatenates the skip connection from the encoder. After the last level, another 3x3 transposed convolution
of stride 2 computes the logits.
"""

import tensorflow as tf

from core import ops
from core.models import mobilenet_v2
from core.weights import batch_norm, glorot_uniform, normal, zeros

FILTERS = (64, 128, 256, 512)  # channels per decoder level; level 0 has the largest feature maps
DEPTH = len(FILTERS)  # number of decoder levels and of skip connections
DEVIATION = 0.02  # standard deviation of the decoder levels' initial kernels (pix2pix, Isola et al. 2017)
ENCODER = "encoder/"  # prefix of the names of the encoder's variables


def init_weights(*, seed, classes, train_encoder=False, freeze_encoder_norm=False):
    """Return the initial variables, name -> float32 `tf.Variable`: 6,504,227 parameters for three classes.

    1,841,984 of these parameters belong to the encoder. train_encoder, freeze_encoder_norm: `trainable` and
    `freeze_norm` of `mobilenet_v2.init_weights`. The kernels of the decoder levels are normal with standard
    deviation DEVIATION. The kernel of the last layer is Glorot uniform, the default of Keras.
    """
    down = mobilenet_v2.init_weights(seed=seed, trainable=train_encoder, freeze_norm=freeze_encoder_norm)
    weights = {f"{ENCODER}{name}": variable for name, variable in down.items()}
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
    """Return the variables of the encoder, a dict: name without the prefix "encoder/" -> `tf.Variable`."""
    return {
        name.removeprefix(ENCODER): variable for name, variable in weights.items() if name.startswith(ENCODER)
    }


def forward(weights, images, *, training=False, seed=None):
    """Return the logits [B, H, W, classes] of images [B, H, W, 3] with values 0..255.

    The images are float32, bfloat16 or float16. All activations and the logits have the dtype of the images.
    H and W must be multiples of 32. training: True makes batch normalisation use the batch's statistics and
    update the moving averages. In the encoder, a batch normalisation with non-trainable gamma always uses the
    moving averages and does not change them. seed: has no effect. F(level) in the comments is FILTERS[level].
    """
    variables = encoder(weights)
    *skips, x = mobilenet_v2.forward(variables, images / 128 - 1, training=training)  # input in -1..1
    # The variables of a frozen encoder get no gradient anyway. With `stop_gradient`, the rule
    # `frozen_part_apart` of core/lowering/merged.py also saves the gradients of the encoder's maps.
    if training and not any(variable.trainable for variable in variables.values()):
        *skips, x = map(tf.stop_gradient, [*skips, x])
    for level in reversed(range(DEPTH)):
        x = ops.conv2d_transpose(x, weights[f"up{level}/transpose/kernel"], stride=2)
        norm = (weights[f"up{level}/norm/{part}"] for part in ("gamma", "beta", "mean", "variance"))
        x = ops.batch_norm(x, *norm, training=training)
        x = tf.nn.relu(x)  # [B, H / 2^(level + 1), W / 2^(level + 1), F(level)]
        x = tf.concat([x, skips[level]], axis=-1)
    return ops.conv2d_transpose(x, weights["logits/kernel"], weights["logits/bias"], stride=2)
