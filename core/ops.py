"""The operations that the networks are composed of: plain functions of tensors.

Layouts:
    activations                         [batch, height, width, channels] (NHWC)
    kernels of convolutions             [height, width, in, out] (HWIO)
    kernels of transposed convolutions  [height, width, out, in], as in `tf.nn.conv2d_transpose`

In the shapes below, h and w are the height and width of a kernel, I and O are the numbers of input and
output channels, and s is the stride. Convolutions use SAME padding, so H/s and W/s are rounded up.

In the names of the ops, `down` and `up` mean encoder and decoder. `maxpool_up` computes no maximum: it is the
nearest-neighbour up-sampling that reverses the size change of `maxpool_down`.

Kernels are stored as float32 and cast to the dtype of the activations. The dtype of the images therefore
decides the precision of a whole forward pass.

Convolutions, biases and leaky ReLUs call functions of `core.lowering`, and so does batch normalisation with
training=False. Called eagerly, the functions of `core.lowering` run TensorFlow's primitives. In a graph on a
machine without a GPU, they may compute the same values, up to rounding, by faster ops. An edit of this file
changes the network both eagerly and in a graph.
"""

import tensorflow as tf

from core import lowering

LEAK = 0.2  # slope of the leaky ReLU for negative inputs, as in the road article
EPSILON = 1e-3  # added to the variance in batch normalisation; the default of Keras


def conv2d(x, kernel, bias=None, *, stride=1):
    """Convolution without activation: [B, H, W, I] -> [B, H/s, W/s, O]. kernel: [h, w, I, O]; bias: [O]."""
    x = lowering.conv2d(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return _add_bias(x, bias)


def conv2d_transpose(x, kernel, bias=None, *, stride=1):
    """Transposed convolution without activation: [B, H, W, I] -> [B, sH, sW, O].

    kernel: [h, w, O, I]; bias: [O].
    """
    x = lowering.conv2d_transpose(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return _add_bias(x, bias)


def depthwise_conv2d(x, kernel, bias=None, *, stride=1):
    """Depthwise convolution without activation: [B, H, W, C] -> [B, H/s, W/s, C].

    kernel: [h, w, C, 1]; bias: [C].
    """
    x = lowering.depthwise_conv2d(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return _add_bias(x, bias)


def conv2d_down(x, kernel):
    """Convolution of stride 1, then leaky ReLU: [B, H, W, I] -> [B, H, W, O]. kernel: [h, w, I, O]."""
    return lowering.leaky_relu(conv2d(x, kernel), LEAK)


def maxpool_down(x):
    """2x2 max-pooling of stride 2 with VALID padding: [B, H, W, C] -> [B, H // 2, W // 2, C]."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")


def conv2d_up(x, kernel):
    """Transposed convolution of stride 1, then leaky ReLU: [B, H, W, I] -> [B, H, W, O].

    kernel: [h, w, O, I]. With odd h and w, a transposed convolution of stride 1 equals a convolution whose
    kernel is rotated by 180 degrees and has its last two axes exchanged.
    """
    return lowering.leaky_relu(conv2d_transpose(x, kernel), LEAK)


def maxpool_up(x):
    """Nearest-neighbour up-sampling by a factor of two: [B, H, W, C] -> [B, 2H, 2W, C].

    Four copies of x are concatenated along the channels and rearranged by `depth_to_space`. On GPUs, the
    gradient of these two ops is deterministic. Nearest-neighbour `tf.image.resize` has no deterministic
    gradient on GPUs.
    """
    return tf.nn.depth_to_space(tf.concat([x] * 4, axis=-1), 2)


def dropout(x, rate, seed, layer):
    """Dropout: set each value of x to zero with probability `rate`, and divide the other values by 1 - rate.

    x: [B, H, W, C]. seed: int64 [2], different in each training step, or None. If seed is None, x is returned
    unchanged. layer: int, different for each dropout layer of a network. This number is folded into the seed,
    so that the random choices of different layers are independent. To save time, each random 32-bit number is
    split into two 16-bit numbers. The rate is therefore rounded to a multiple of 2**-16.
    """
    if seed is None:
        return x
    threshold = round(rate * 2**16)
    *sizes, channels = tf.unstack(tf.shape(x))
    layer_seed = tf.random.experimental.stateless_fold_in(seed, layer)
    drawn = tf.random.stateless_uniform(
        [*sizes, (channels + 1) // 2], layer_seed, minval=None, maxval=None, dtype=tf.int32
    )
    drawn = tf.reshape(tf.bitcast(drawn, tf.int16), [*sizes, -1])[..., :channels]  # from -2**15 to 2**15 - 1
    return tf.where(drawn >= threshold - 2**15, x / (1 - threshold / 2**16), 0)


def batch_norm(x, gamma, beta, mean, variance, *, training, momentum=0.99):
    """Batch normalisation over batch, height and width: [B, H, W, C] -> [B, H, W, C].

    gamma, beta: scale and offset, float32 [C]. mean, variance: moving averages, float32 [C]. If training is
    true, x is normalised by the mean and variance of the batch, and the variables `mean` and `variance` are
    updated. If training is false, x is normalised by `mean` and `variance`. From Ioffe and Szegedy 2015.

    momentum: an update changes a moving average to momentum * average + (1 - momentum) * value of the batch.
    The default momentum is the default of Keras.
    """
    if not training:
        return lowering.batch_norm_inference(x, gamma, beta, mean, variance, EPSILON)
    x, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=EPSILON, is_training=True
    )
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    # For the variance, the op divides the sum of squared deviations by count - 1. Keras divides by count.
    biased = batch_variance * (count - 1) / count
    mean.assign(momentum * mean + (1 - momentum) * batch_mean)
    variance.assign(momentum * variance + (1 - momentum) * biased)
    return x


def _add_bias(x, bias):
    return x if bias is None else lowering.bias_add(x, tf.cast(bias, x.dtype))
