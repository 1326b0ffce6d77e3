"""The operations that the networks are composed of: pure functions of tensors.

Layouts: activations are NHWC, `[batch, height, width, channels]`; kernels are HWIO,
`[height, width, in, out]`, and kernels of transposed convolutions `[height, width, out, in]`,
as `tf.nn.conv2d_transpose` takes them.

Kernels are float32 and are cast to the dtype of the activations, so that the dtype of the
images alone decides the precision of a forward pass.

Convolutions and frozen normalisation call `core.lowering`, whose functions are
TensorFlow's primitives when they are called eagerly. In a graph on a CPU they may compute
the same values with less work; an edit here changes the network either way.
"""

import tensorflow as tf

from core import lowering

LEAK = 0.2  # slope of the leaky ReLU for negative inputs, as in the road article
EPSILON = 1e-3  # added to the variance in batch normalisation: Keras' default


def conv2d(x, kernel, bias=None, *, stride=1):
    """Convolution, SAME, linear: [B, H, W, I] -> [B, H/s, W/s, O], sizes rounded up."""
    x = lowering.conv2d(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return _add_bias(x, bias)


def conv2d_transpose(x, kernel, bias=None, *, stride=1):
    """Transposed convolution, SAME, linear: [B, H, W, I] -> [B, sH, sW, O]; kernel [h, w, O, I]."""
    x = lowering.conv2d_transpose(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return _add_bias(x, bias)


def depthwise_conv2d(x, kernel, bias=None, *, stride=1):
    """Depthwise convolution, SAME, linear: [B, H, W, C] -> [B, H/s, W/s, C].

    kernel: [h, w, C, 1]. Sizes are rounded up.
    """
    x = lowering.depthwise_conv2d(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return _add_bias(x, bias)


def conv2d_down(x, kernel):
    """Convolution, stride 1, SAME, leaky ReLU: [B, H, W, I] -> [B, H, W, O]."""
    return tf.nn.leaky_relu(conv2d(x, kernel), LEAK)


def maxpool_down(x):
    """2x2 max-pooling, VALID: [B, H, W, C] -> [B, H // 2, W // 2, C]."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")


def conv2d_up(x, kernel):
    """Transposed convolution, stride 1, SAME, leaky ReLU: [B, H, W, I] -> [B, H, W, O].

    At stride 1 this is a convolution with the kernel rotated by 180 degrees.
    """
    return tf.nn.leaky_relu(conv2d_transpose(x, kernel), LEAK)


def maxpool_up(x):
    """Nearest-neighbour up-sampling by two: [B, H, W, C] -> [B, 2H, 2W, C].

    Implemented as four copies along the channels and `depth_to_space`, whose gradient is deterministic
    on GPUs; the gradient of TensorFlow's nearest-neighbour resizing is not.
    """
    return tf.nn.depth_to_space(tf.concat([x] * 4, axis=-1), 2)


def dropout(x, rate, seed, layer):
    """Set a share `rate` of the values to zero and scale up the rest; return x itself if seed is None.

    seed: int [2], the seed of the step; layer: int, folded into the seed so that each layer draws its
    own values. The rate is rounded to a multiple of 2**-16, because each random number of 32 bits
    is used for two values, which takes half the time of one number per value.
    """
    if seed is None:
        return x
    threshold = round(rate * 2**16)
    *sizes, channels = tf.unstack(tf.shape(x))
    layer_seed = tf.random.experimental.stateless_fold_in(seed, layer)
    drawn = tf.random.stateless_uniform(
        [*sizes, (channels + 1) // 2], layer_seed, minval=None, maxval=None, dtype=tf.int32
    )
    drawn = tf.reshape(tf.bitcast(drawn, tf.int16), [*sizes, -1])[..., :channels]  # -2**15 .. 2**15 - 1
    return tf.where(drawn >= threshold - 2**15, x / (1 - threshold / 2**16), 0)


def batch_norm(x, gamma, beta, mean, variance, *, training, momentum=0.99):
    """Batch normalisation over batch, height and width: [B, H, W, C] -> [B, H, W, C].

    gamma, beta, mean, variance: float32 [C]. In training, x is normalised by the batch's statistics,
    and the variables mean and variance are updated as moving averages; otherwise x is normalised by
    mean and variance. Ioffe and Szegedy 2015; the momentum and the biased variance follow Keras.
    """
    if not training:
        return lowering.batch_norm_inference(x, gamma, beta, mean, variance, EPSILON)
    x, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=EPSILON, is_training=True
    )
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    # TensorFlow's op returns the unbiased variance (divided by count - 1)
    biased = batch_variance * (count - 1) / count
    mean.assign(momentum * mean + (1 - momentum) * batch_mean)
    variance.assign(momentum * variance + (1 - momentum) * biased)
    return x


def _add_bias(x, bias):
    return x if bias is None else tf.nn.bias_add(x, tf.cast(bias, x.dtype))
