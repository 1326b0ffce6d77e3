"""Loss scaling, for float16: most gradients of an unscaled loss lie below its smallest numbers.

The factor follows what fits: half after each overflow, whose step is left out,
twice after 2000 steps without one (Micikevicius et al., 2018, section 3.2).
"""

import tensorflow as tf

FIRST, PATIENCE = 2.0**15, 2000


def init_slots(dtype):
    """Its variables, name -> `tf.Variable`; none where dtype needs no scaling."""
    if dtype != tf.float16:
        return {}
    return {
        "scaling/factor": tf.Variable(FIRST, trainable=False),
        "scaling/steps": tf.Variable(0, trainable=False, dtype=tf.int64),  # since it last changed
    }


def scaled(loss, slots):
    """The loss to take gradients of."""
    return loss * slots["scaling/factor"] if "scaling/factor" in slots else loss


def apply(update, gradients, slots):
    """Call update(gradients), unscaled, unless one is not finite; adapt the factor, in place.

    gradients: name -> float32 tensor of the scaled loss, summed over all replicas.
    """
    if "scaling/factor" not in slots:
        update(gradients)
        return
    factor, steps = tf.identity(slots["scaling/factor"]), tf.identity(slots["scaling/steps"])
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients.values()])
    tf.cond(
        finite,
        lambda: update({name: each / factor for name, each in gradients.items()}),
        lambda: None,
    )
    grows = finite & (steps + 1 >= PATIENCE)
    factor = tf.where(finite, tf.where(grows, 2 * factor, factor), factor / 2)
    steps = tf.where(finite & ~grows, steps + 1, 0)
    tf.raw_ops.AssignVariableOp(resource=slots["scaling/factor"].handle, value=factor)
    tf.raw_ops.AssignVariableOp(resource=slots["scaling/steps"].handle, value=steps)
