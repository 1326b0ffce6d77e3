"""Create named float32 `tf.Variable`s with initial values, use them as constants, and count parameters.

Random initial values depend only on the seed and on the variable's name, shape and distribution. Variables
may therefore be created in any order, and adding a variable to a network does not change the initial values
of the other variables.
"""

import math
import zlib

import tensorflow as tf

MAX_FIXED = 10**7  # largest number of parameters that `fixed` turns into constants


def glorot_uniform(name, shape, *, seed):
    """Return a kernel with values that are uniformly distributed between -limit and limit.

    Here limit = sqrt(6 / (fan in + fan out)).

    shape: [h, w, in, out], or [h, w, out, in] for a transposed convolution. fan in is h * w * in, and fan
    out is h * w * out. From Glorot and Bengio 2010, "Understanding the difficulty of training deep
    feedforward neural networks", formula 16.
    """
    receptive_field = math.prod(shape[:-2])
    limit = math.sqrt(6 / (receptive_field * (shape[-2] + shape[-1])))
    value = tf.random.stateless_uniform(shape, _seed(seed, name), -limit, limit)
    return tf.Variable(value, name=name)


def he_normal(name, shape, *, seed):
    """Return a kernel from a truncated normal distribution with standard deviation sqrt(2 / fan in).

    shape: [h, w, in, out]. fan in is h * w * in. From He et al. 2015, "Delving deep into rectifiers". As in
    Keras, the distribution is truncated at two standard deviations and then rescaled, so that its standard
    deviation is sqrt(2 / fan in).
    """
    # 0.8796... is the standard deviation of a standard normal distribution that is truncated at -2 and 2
    deviation = math.sqrt(2 / math.prod(shape[:-1])) / 0.87962566103423978
    value = tf.random.stateless_truncated_normal(shape, _seed(seed, name), 0, deviation)
    return tf.Variable(value, name=name)


def normal(name, shape, *, seed, deviation):
    """Return a kernel from a normal distribution with mean 0. deviation: the standard deviation."""
    value = tf.random.stateless_normal(shape, _seed(seed, name), 0, deviation)
    return tf.Variable(value, name=name)


def zeros(name, shape):
    """Return a variable of zeros, such as a bias."""
    return tf.Variable(tf.zeros(shape), name=name)


def batch_norm(name, channels):
    """Return the variables of a batch normalisation: NAME/gamma, NAME/beta, NAME/mean, NAME/variance.

    The result is a dict of name -> float32 `tf.Variable` [channels]. mean and variance are moving averages
    and not trainable. If there are several replicas, each replica assigns its own values to mean and
    variance. The variables then hold the mean over the replicas.
    """
    moving = {"trainable": False, "aggregation": tf.VariableAggregation.MEAN}
    return {
        f"{name}/gamma": tf.Variable(tf.ones(channels), name=f"{name}/gamma"),
        f"{name}/beta": zeros(f"{name}/beta", channels),
        f"{name}/mean": tf.Variable(tf.zeros(channels), name=f"{name}/mean", **moving),
        f"{name}/variance": tf.Variable(tf.ones(channels), name=f"{name}/variance", **moving),
    }


def fixed(forward):
    """Wrap a forward pass so that it uses the weights as constants of its graph; return the wrapped function.

    The wrapped function may be called only while a `tf.function` is traced. TensorFlow casts and rearranges
    constant kernels once, when it compiles the graph, and not in each call. The constants do not follow later
    changes of the variables. For more than MAX_FIXED parameters, casting and rearranging would take seconds,
    and several times the memory of the weights. In this case, the variables are used.
    forward: a function (weights, images, **options) -> logits. weights is a dict of name -> `tf.Variable`.
    """

    def with_constants(weights, images, **options):
        if count(weights) <= MAX_FIXED:
            with tf.init_scope():  # outside of the graph, where variables have values
                values = {name: variable.numpy() for name, variable in weights.items()}
            weights = {name: tf.constant(value) for name, value in values.items()}
        return forward(weights, images, **options)

    return with_constants


def count(weights):
    """Return the number of scalars in all variables of a dict, including moving averages."""
    return sum(math.prod(variable.shape) for variable in weights.values())


def _seed(seed, name):
    """Return the seed, int64 [2], for the initial value of a variable."""
    return tf.constant([seed, zlib.crc32(name.encode())], tf.int64)
