"""The learning rate of each step."""

import math

import tensorflow as tf

SHAPES = ("constant", "cosine")


def learning_rate(step, *, peak, shape, warmup_steps, steps):
    """float32: the rate of a step, an int64 tensor that counts from 0, out of `steps`.

    It grows in a line to its peak over the first warmup_steps, and then stays, or
    falls along half a cosine that would reach 0 one step after the last
    (Loshchilov and Hutter, 2017, without restarts).
    """
    step = tf.cast(step, tf.float32)
    warm = tf.minimum((step + 1) / (warmup_steps + 1), 1.0)
    if shape == "constant":
        return peak * warm
    done = tf.maximum(step - warmup_steps, 0.0) / max(steps - warmup_steps, 1)
    return peak * warm * (1 + tf.cos(math.pi * done)) / 2
