"""The limits of this machine, as far as TensorFlow reaches them: arithmetic and memory."""

import math

import tensorflow as tf

from experiments.benchmark import measurement

# [B, H, W, C] that 3x3 convolutions from C to C channels are timed on: sizes as in the U-Nets
SIZES = ((16, 64, 64, 64), (16, 32, 32, 256), (8, 64, 64, 128))
CALL = 0.1  # seconds that a call should take, of several convolutions on a fast device
NUMBERS = 2**25  # float32, 128 MiB: more than a cache holds


def measure(spec):
    """The best of all calls: convolutions in 10^9 operations a second, memory in 10^9 bytes."""
    seconds, dtype = spec.seconds / (len(SIZES) + 1), tf.dtypes.as_dtype(spec.precision)
    return {
        "conv_gflops": max(convolution(size, dtype, seconds) for size in SIZES),
        "memory_gb_per_s": memory(seconds),
        "versions": {},
    }


def convolution(size, dtype, seconds):
    """10^9 operations a second, two for a multiply-add, of convolutions on images of one size."""
    channels = size[-1]
    images = tf.cast(tf.random.normal(size), dtype)
    kernel = tf.random.normal([3, 3, channels, channels], stddev=(9 * channels) ** -0.5)
    kernel = tf.cast(kernel, dtype)

    @tf.function
    def convolve(times):
        x = images
        for _ in tf.range(times):
            x = tf.nn.conv2d(x, kernel, strides=1, padding="SAME")
        return x[0, 0, 0, 0]

    once = _best(lambda: float(convolve(tf.constant(1))), 0)
    times = math.ceil(CALL / once)
    each = _best(lambda: float(convolve(tf.constant(times))), seconds) / times
    return 2 * 9 * channels * math.prod(size) / each / 1e9


def memory(seconds):
    """10^9 bytes a second, read and written, of adding one large array to another in place."""
    total, term = tf.Variable(tf.zeros(NUMBERS)), tf.ones(NUMBERS)

    def add():
        total.assign_add(term)
        float(total[0])

    return 3 * term.dtype.size * NUMBERS / _best(add, seconds) / 1e9


def _best(call, seconds):
    taken, _ = measurement.timed(call, seconds, least=3)  # the first may trace
    return min(taken)


if __name__ == "__main__":
    measurement.take(measure)
