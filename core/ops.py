"""The operations the networks are composed of: pure functions of tensors.

Layouts, stated once: activations are NHWC, `[batch, height, width, channels]`;
kernels are HWIO, `[height, width, in, out]`, and those of transposed
convolutions `[height, width, out, in]`, as `tf.nn.conv2d_transpose` has them.

Kernels are float32 and are cast to the dtype of the activations, so that the
dtype of the images alone decides the precision of a forward pass.
"""

import tensorflow as tf

from core.lowering import fast_convolution

LEAK = 0.2  # slope of the leaky ReLU for negative inputs, as in the road article
EPSILON = 1e-3  # on the variance that batch normalisation divides by: Keras'


def conv2d(x, kernel, bias=None, *, stride=1):
    """Convolution, SAME, linear: [B, H, W, I] -> [B, H/s, W/s, O], sizes rounded up."""
    if fast_convolution.pays(x, kernel, stride):
        x = fast_convolution.conv2d(x, tf.convert_to_tensor(kernel))
    else:
        x = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides=stride, padding="SAME")
    return x if bias is None else tf.nn.bias_add(x, tf.cast(bias, x.dtype))


def conv2d_transpose(x, kernel, bias=None, *, stride=1):
    """Transposed convolution, SAME, linear: [B, H, W, I] -> [B, sH, sW, O].

    The kernel is [h, w, O, I]; the output size follows from the input's.
    """
    batch, height, width, _ = tf.unstack(tf.shape(x))
    output_shape = [batch, stride * height, stride * width, kernel.shape[2]]
    kernel = tf.cast(kernel, x.dtype)
    if kernel.shape[:2] == [stride, stride]:  # no outputs overlap: a product of matrices, 1.5 x faster
        x = tf.tensordot(x, kernel, [[3], [3]])  # [B, H, W, s, s, O]
        x = tf.reshape(x, [batch * height, width, stride, stride * kernel.shape[2]])
        x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), output_shape)
    elif fast_convolution.pays_transposed(x, kernel, stride):
        x = fast_convolution.conv2d_transpose(x, kernel)
    else:
        x = tf.nn.conv2d_transpose(x, kernel, output_shape, strides=stride, padding="SAME")
    return x if bias is None else tf.nn.bias_add(x, tf.cast(bias, x.dtype))


def conv2d_down(x, kernel):
    """Convolution, stride 1, SAME, leaky ReLU: [B, H, W, I] -> [B, H, W, O]."""
    return tf.nn.leaky_relu(conv2d(x, kernel), LEAK)


def maxpool_down(x):
    """2x2 max-pooling, VALID: [B, H, W, C] -> [B, H // 2, W // 2, C]."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")


def conv2d_up(x, kernel):
    """Transposed convolution, stride 1, SAME, leaky ReLU: [B, H, W, I] -> [B, H, W, O].

    At stride 1 this is a convolution with the kernel turned by 180 degrees.
    """
    return tf.nn.leaky_relu(conv2d_transpose(x, kernel), LEAK)


@tf.custom_gradient
def maxpool_up(x):
    """Nearest-neighbour up-sampling by two: [B, H, W, C] -> [B, 2H, 2W, C].

    The gradient of a pixel is the sum over its four copies. TensorFlow's own for
    this op has no deterministic version on a GPU.
    """
    _, height, width, _ = tf.unstack(tf.shape(x))
    up = tf.image.resize(x, [2 * height, 2 * width], method="nearest")
    return up, lambda gradient: 4 * tf.nn.avg_pool2d(gradient, ksize=2, strides=2, padding="VALID")


def maxpool_up_conv2d_up(x, skip, kernel):
    """`conv2d_up` of [`maxpool_up(x)`, skip]: [B, H, W, I], [B, 2H, 2W, S] -> [B, 2H, 2W, O].

    kernel: [3, 3, O, I + S]. The same numbers as

        conv2d_up(tf.concat([maxpool_up(x), skip], axis=-1), kernel)

    but for rounding, of which neither the concatenation nor the doubled pixels are made:
    a convolution of channels side by side is the sum of two, and that of doubled pixels
    is one of stride 2 by the kernel laid over itself four times, a pixel apart: 4 taps an
    output instead of 9. The road network trains and predicts 1.25 times as fast for it.
    """
    to_x, to_skip = tf.split(kernel, [x.shape[-1], skip.shape[-1]], axis=3)
    up = conv2d_transpose(x, _kernel_of_blocks([to_x] * 4), stride=2)
    return tf.nn.leaky_relu(up + conv2d_transpose(skip, to_skip), LEAK)


def conv2d_transpose_conv2d(x, skip, up_kernel, up_bias, kernel, bias):
    """`conv2d` of [`conv2d_transpose(x)`, skip]: [B, H, W, I], [B, 2H, 2W, S] -> [B, 2H, 2W, O].

    up_kernel: [2, 2, M, I]; up_bias: [M]; kernel: [3, 3, M + S, O]; bias: [O]. On CPUs the two
    linear layers are one, but for rounding the same: neither the map between them nor the concatenation
    is made. The Dubai network trains and predicts 1.05 times as fast for it, in 0.88 of the memory.
    """
    if not fast_convolution.wanted():
        up = conv2d_transpose(x, up_kernel, up_bias, stride=2)
        return conv2d(tf.concat([up, skip], axis=-1), kernel, bias)
    _, _, between, inside = up_kernel.shape
    to_up, to_skip = tf.split(kernel, [between, skip.shape[-1]], axis=2)
    turned = tf.transpose(to_up[::-1, ::-1], [0, 1, 3, 2])  # [3, 3, O, M]
    through = tf.tensordot(turned, tf.reshape(up_kernel, [4, between, inside]), [[3], [1]])
    up = conv2d_transpose(x, _kernel_of_blocks(tf.unstack(through, axis=3)), stride=2)
    _, height, width, _ = tf.unstack(tf.shape(skip))
    ones, bias_kernel = tf.ones([1, height, width, 1], x.dtype), tf.tensordot(to_up, up_bias, [[2], [0]])
    from_biases = conv2d(ones, bias_kernel[:, :, None], bias)  # [1, 2H, 2W, O], less at the edges
    return up + conv2d(skip, to_skip) + from_biases


def _kernel_of_blocks(kernels):
    """A kernel [4, 4, O, I] of transposed convolution, stride 2, from four [3, 3, O, I] of stride 1.

    These are for the pixels, row by row, of the 2x2 block that an input grows to. The
    pixels lie one apart, and so do the kernels in the sum.
    """
    at = [([row, 1 - row], [column, 1 - column]) for row in (0, 1) for column in (0, 1)]
    return tf.add_n([tf.pad(each, [*where, [0, 0], [0, 0]]) for each, where in zip(kernels, at)])


def dropout(x, rate, seed, layer):
    """Zero a share `rate` of the numbers and scale up the rest; x itself if seed is None.

    seed: int [2], of the step; layer: int, so that each layer draws its own. The
    rate is taken as the nearest multiple of 2**-16: two numbers share a random one
    of 32 bits, which trains the Dubai network 18 % faster than `tf.nn`'s dropout.
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
    """Batch normalisation over all but the channels: [B, H, W, C] -> [B, H, W, C].

    gamma, beta, mean, variance: float32 [C]. Training normalises by the batch's
    statistics and moves the variables mean and variance towards them by a share
    1 - momentum; otherwise normalises by these. Ioffe and Szegedy 2015; momentum
    and the biased variance are Keras'.
    """
    if not training:
        x, *_ = tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, epsilon=EPSILON, is_training=False
        )
        return x
    x, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=EPSILON, is_training=True
    )
    numbers = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    biased = batch_variance * (numbers - 1) / numbers  # the op divides by numbers - 1
    mean.assign(momentum * mean + (1 - momentum) * batch_mean)
    variance.assign(momentum * variance + (1 - momentum) * biased)
    return x


def fold_batch_norm(kernel, gamma, beta, mean, variance):
    """Kernel and bias of the convolution that does another's and `batch_norm`'s work, when not training.

    kernel: float32, of `conv2d` [h, w, I, O] or `depthwise_conv2d` [h, w, O, 1]; the new one
    has its shape. The bias is float32 [O]. On CPUs TensorFlow makes one op of it all, activation
    included: MobileNetV2's U-Net predicts 1.24 times as fast in bfloat16, 1.07 in float32.
    """
    scale = gamma * tf.math.rsqrt(variance + EPSILON)
    return kernel * tf.reshape(scale, [-1, kernel.shape[3]]), beta - mean * scale


def depthwise_conv2d(x, kernel, bias=None, *, stride=1):
    """Convolution of each channel by itself, SAME, linear: [B, H, W, C] -> [B, H/s, W/s, C].

    The kernel is [h, w, C, 1]; sizes are rounded up.
    """
    kernel, strides = tf.cast(kernel, x.dtype), [1, stride, stride, 1]
    x = tf.nn.depthwise_conv2d(x, kernel, strides=strides, padding="SAME")
    return x if bias is None else tf.nn.bias_add(x, tf.cast(bias, x.dtype))
