"""Create named `tf.Variable`s with their initial values, and count parameters.

An initial value depends only on (seed, name): variables may be created in any order, and a
new variable does not change the others.
"""

import math
import zlib

import tensorflow as tf


def glorot_uniform(name, shape, *, seed):
    """Return a float32 convolution kernel, uniform in +-sqrt(6 / (fan in + fan out)).

    Glorot and Bengio 2010, "Understanding the difficulty of training deep
    feedforward neural networks", formula 16.
    """
    receptive_field = math.prod(shape[:-2])
    limit = math.sqrt(6 / (receptive_field * (shape[-2] + shape[-1])))
    value = tf.random.stateless_uniform(shape, _seed(seed, name), -limit, limit)
    return tf.Variable(value, name=name)


def he_normal(name, shape, *, seed):
    """Return a float32 convolution kernel, normal with standard deviation sqrt(2 / fan in), truncated.

    He et al. 2015, "Delving deep into rectifiers"; truncated at two deviations and rescaled as in Keras.
    """
    deviation = math.sqrt(2 / math.prod(shape[:-1])) / 0.87962566103423978
    value = tf.random.stateless_truncated_normal(shape, _seed(seed, name), 0, deviation)
    return tf.Variable(value, name=name)


def normal(name, shape, *, seed, deviation):
    """Return a float32 kernel, normal with mean 0, not truncated."""
    value = tf.random.stateless_normal(shape, _seed(seed, name), 0, deviation)
    return tf.Variable(value, name=name)


def zeros(name, shape):
    """Return a float32 bias of zeros."""
    return tf.Variable(tf.zeros(shape), name=name)


def batch_norm(name, channels):
    """Return the four variables of `ops.batch_norm`, in its order; the last two are not trained.

    With several replicas, the last two become the mean of the values that the replicas assign.
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
