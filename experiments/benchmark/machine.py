"""Measure this machine's limits in TensorFlow: FLOP/s of convolutions and memory bandwidth."""

import math

import tensorflow as tf

from experiments.benchmark import measurement

# shapes [B, H, W, C] of the timed 3x3 convolutions from C to C channels; sizes as in the U-Nets
SIZES = ((16, 64, 64, 64), (16, 32, 32, 256), (8, 64, 64, 128))
CALL_SECONDS = 0.1  # approximate duration of a call; on a fast device a call contains several convolutions
NUMBERS = 2**25  # number of float32 values: 128 MiB, larger than any cache


def measure(spec):
    """Return the rate of the fastest call of each kind: convolutions in GFLOP/s, memory in GB/s."""
    seconds, dtype = spec.seconds / (len(SIZES) + 1), tf.dtypes.as_dtype(spec.precision)
    return {
        "conv_gflops": max(convolution(size, dtype, seconds) for size in SIZES),
        "memory_gb_per_s": memory(seconds),
        "versions": {},
    }


def convolution(size, dtype, seconds):
    """Measure 3x3 convolutions on images [B, H, W, C]: GFLOP/s (a multiply-add counts as two)."""
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

    once = _fastest(lambda: float(convolve(tf.constant(1))), 0)
    times = math.ceil(CALL_SECONDS / once)
    each = _fastest(lambda: float(convolve(tf.constant(times))), seconds) / times
    return 2 * 9 * channels * math.prod(size) / each / 1e9


def memory(seconds):
    """Measure the GB/s read and written while one large array is added to another in place."""
    total, term = tf.Variable(tf.zeros(NUMBERS)), tf.ones(NUMBERS)

    def add():
        total.assign_add(term)
        float(total[0])

    return 3 * term.dtype.size * NUMBERS / _fastest(add, seconds) / 1e9


def _fastest(call, seconds):
    durations, _ = measurement.time_calls(call, seconds, least=3)  # the first call may trace
    return min(durations)


if __name__ == "__main__":
    measurement.main(measure)
