"""Measure the limits of this machine with TensorFlow: FLOP/s of 3x3 convolutions and memory bandwidth."""

import math

import tensorflow as tf

from experiments.benchmark import measurement

# shapes [B, H, W, C] of the inputs and outputs of the measured convolutions, as they occur in the U-Nets
SIZES = ((16, 64, 64, 64), (16, 32, 32, 256), (8, 64, 64, 128))
CALL_SECONDS = 0.1  # a timed call repeats the convolution so often that the call takes about this time
NUMBERS = 2**25  # number of float32 values in each added array: 128 MiB, more than processor caches hold


def measure(spec):
    """Return a dict with the highest measured rates: conv_gflops in GFLOP/s, memory_gb_per_s in GB/s.

    The dict also has the item "versions", an empty dict, because `table.summarise` reads this item from every
    measurement.

    spec: settings, see `comparison._settings`. spec.seconds: the approximate duration of the whole
    measurement. spec.precision: the dtype of the convolutions.
    """
    seconds, dtype = spec.seconds / (len(SIZES) + 1), tf.dtypes.as_dtype(spec.precision)
    return {
        "conv_gflops": max(convolution(size, dtype, seconds) for size in SIZES),
        "memory_gb_per_s": memory(seconds),
        "versions": {},
    }


def convolution(size, dtype, seconds):
    """Return the GFLOP/s of a 3x3 convolution from C to C channels; a multiply-add counts as two operations.

    size: the shape [B, H, W, C] of the input. dtype: the dtype of the input and the kernel. seconds: the
    approximate duration of the measurement.
    """
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
    """Return the memory bandwidth in GB/s, measured with the in-place addition of two large arrays.

    An addition reads two arrays and writes one. seconds: the approximate duration of the measurement.
    """
    total, term = tf.Variable(tf.zeros(NUMBERS)), tf.ones(NUMBERS)

    def add():
        total.assign_add(term)
        float(total[0])

    return 3 * term.dtype.size * NUMBERS / _fastest(add, seconds) / 1e9


def _fastest(call, seconds):
    """Call call() for about `seconds` seconds, at least 3 times; return the seconds of the shortest call."""
    # at least 3 calls, because the first call may include the tracing of a `tf.function`
    durations, _ = measurement.time_calls(call, seconds, least=3)
    return min(durations)


if __name__ == "__main__":
    measurement.main(measure)
