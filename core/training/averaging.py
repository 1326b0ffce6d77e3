"""Averaged weights: the last steps' taken together often predict better than the last.

An exponential moving average of every variable of the network, the statistics of
batch normalisation included.
"""

import tensorflow as tf

PREFIX = "average/"


def init_averages(weights):
    """ "average/NAME" -> `tf.Variable`, for each weight, of its value."""
    return {
        PREFIX + name: tf.Variable(tf.identity(weight), trainable=False) for name, weight in weights.items()
    }


def update(averages, weights, step, *, decay):
    """Move each average towards its weight, in place, after a step: int64, 1 after the first.

    Each keeps `decay` of itself; in the first steps, when it knows little, no more
    than (1 + step) / (10 + step).
    """
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(decay, (1 + step) / (10 + step))
    for name, average in averages.items():
        towards = (1 - decay) * (average - weights[name.removeprefix(PREFIX)])
        tf.raw_ops.AssignSubVariableOp(resource=average.handle, value=towards)


def evaluated(variables):
    """Those of a training's variables that predictions are made with: NAME -> value.

    Its averages where it has them, else its weights, without the slots of its steps.
    """
    averages = {
        name.removeprefix(PREFIX): value for name, value in variables.items() if name.startswith(PREFIX)
    }
    slots = "adam/", "scaling/"
    return averages or {name: value for name, value in variables.items() if not name.startswith(slots)}
