"""Measure whether float32 or bfloat16 is faster on this machine, for --precision=auto.

bfloat16 is faster on processors with bfloat16 instructions, and slower on other processors. The measured step
is small. On a fast GPU, starting its ops may take longer than computing them. The choice may then be wrong
for large networks.
"""

import time

import tensorflow as tf

AUTO = "auto"
CANDIDATES = ("float32", "bfloat16")
SECONDS = 1.0  # duration of the measurement; the time for tracing comes in addition
WIDTHS = (16, 16, 64, 64)  # output channels of the four convolutions; max-pooling follows the second one
IMAGES = (4, 128, 128, 16)  # shape [B, H, W, C] of the input of the first convolution


def step_seconds(seconds=SECONDS):
    """Return the duration of a small training step for each dtype in CANDIDATES: a dict, name -> seconds.

    A step computes four 3x3 convolutions with ReLU and one max-pooling, similar to the first levels of the
    U-Nets, and the gradients of the kernels. Steps in float32 and in bfloat16 alternate until `seconds` have
    passed, so that other load on the machine affects both dtypes. For each dtype, the duration of the fastest
    step is returned.
    """
    steps = {name: _make_step(tf.dtypes.as_dtype(name)) for name in CANDIDATES}
    for step in steps.values():
        step()  # the first call traces the function, and the time for tracing must not be measured
    durations, end = {name: [] for name in steps}, time.perf_counter() + seconds
    while not durations[CANDIDATES[-1]] or time.perf_counter() < end:
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            durations[name].append(time.perf_counter() - before)
    return {name: min(each) for name, each in durations.items()}


def _make_step(dtype):
    """Return a function without arguments that computes one step and waits until the step is computed.

    `step_seconds` describes a step. dtype: the dtype of the convolutions.
    """
    channels = zip((IMAGES[-1], *WIDTHS), WIDTHS)
    kernels = [tf.fill([3, 3, inside, outside], 0.01) for inside, outside in channels]
    images = tf.ones(IMAGES, dtype)

    @tf.function(autograph=False)
    def gradients(images, kernels):
        """Return the sum of all elements of the kernels' gradients, which requires every gradient."""
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            x = images
            for layer, kernel in enumerate(kernels):
                x = tf.nn.relu(tf.nn.conv2d(x, tf.cast(kernel, dtype), strides=1, padding="SAME"))
                if layer == 1:
                    x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")
            loss = tf.reduce_mean(tf.cast(x, tf.float32))
        return tf.add_n([tf.reduce_sum(each) for each in tape.gradient(loss, kernels)])

    return lambda: float(gradients(images, kernels))
