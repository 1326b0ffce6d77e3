"""Initial values -> named `tf.Variable`s, and counting them.

A value depends on (seed, name) alone: weights may be made in any order, and a
new one changes none of the others.
"""

import math
import zlib

import tensorflow as tf


def glorot_uniform(name, shape, *, seed):
    """float32 kernel of a convolution, uniform in +-sqrt(6 / (fan in + fan out)).

    Glorot and Bengio 2010, "Understanding the difficulty of training deep
    feedforward neural networks", formula 16.
    """
    receptive_field = math.prod(shape[:-2])
    limit = math.sqrt(6 / (receptive_field * (shape[-2] + shape[-1])))
    value = tf.random.stateless_uniform(shape, _seed(seed, name), -limit, limit)
    return tf.Variable(value, name=name)


def he_normal(name, shape, *, seed):
    """float32 kernel of a convolution, normal with deviation sqrt(2 / fan in), cut at two.

    He et al. 2015, "Delving deep into rectifiers"; cut off and rescaled as Keras does.
    """
    deviation = math.sqrt(2 / math.prod(shape[:-1])) / 0.87962566103423978
    value = tf.random.stateless_truncated_normal(shape, _seed(seed, name), 0, deviation)
    return tf.Variable(value, name=name)


def normal(name, shape, *, seed, deviation):
    """float32 kernel, normal around 0, not cut."""
    value = tf.random.stateless_normal(shape, _seed(seed, name), 0, deviation)
    return tf.Variable(value, name=name)


def zeros(name, shape):
    """float32 bias."""
    return tf.Variable(tf.zeros(shape), name=name)


def batch_norm(name, channels):
    """The four variables of `ops.batch_norm`, in its order; the last two are not trained.

    On several replicas, these become the mean of what each assigns.
    """
    moving = {"trainable": False, "aggregation": tf.VariableAggregation.MEAN}
    return {
        f"{name}/gamma": tf.Variable(tf.ones(channels), name=f"{name}/gamma"),
        f"{name}/beta": zeros(f"{name}/beta", channels),
        f"{name}/mean": tf.Variable(tf.zeros(channels), name=f"{name}/mean", **moving),
        f"{name}/variance": tf.Variable(tf.ones(channels), name=f"{name}/variance", **moving),
    }


def count(weights):
    """Number of scalars in a dict of variables, moving averages included."""
    return sum(math.prod(variable.shape) for variable in weights.values())


def _seed(seed, name):
    return tf.constant([seed, zlib.crc32(name.encode())], tf.int64)
