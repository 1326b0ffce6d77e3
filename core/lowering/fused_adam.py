"""Adam's formula as TensorFlow's fused op, where the formula is exactly the one that the op computes.

The plain formula makes a dozen small ops per weight; the fused op makes one. As with the
convolutions, the rewrite depends on the traced graph: if `core.training.optimizer.adam`
is edited, its graph differs from `_formula`'s and the edited formula runs as it is written.
"""

import functools

import tensorflow as tf


def computes(formula, shape, beta1, beta2, epsilon):
    """True if the fused op computes `formula` for a weight of this shape.

    formula: as `core.training.optimizer.adam`. It is traced and compared, op for op and
    constant for constant, with the formula of the fused op.
    """
    try:
        return _graph(formula, shape) == _expected(tuple(shape), beta1, beta2, epsilon)
    except Exception:  # an edited formula may need what a graph of its own does not have
        return False


def apply(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon):
    """Update the variables weight, mean and square by one step of Adam, in place."""
    tf.raw_ops.ResourceApplyAdam(
        var=weight.handle,
        m=mean.handle,
        v=square.handle,
        beta1_power=beta1**step,
        beta2_power=beta2**step,
        lr=learning_rate,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        grad=gradient,
    )


def _formula(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon):
    """The formula of ResourceApplyAdam, in the order of its roundings. Edits belong in `optimizer.adam`."""
    mean = mean + (gradient - mean) * (1 - tf.constant(beta1))
    square = square + (tf.square(gradient) - square) * (1 - tf.constant(beta2))
    rate = learning_rate * tf.sqrt(1 - beta2**step) / (1 - beta1**step)
    return weight - mean * rate / (tf.sqrt(square) + epsilon), mean, square


@functools.cache
def _expected(shape, beta1, beta2, epsilon):
    """`_graph` of `_formula` with these constants."""

    def formula(weight, mean, square, gradient, *, step, learning_rate):
        return _formula(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon)

    return _graph(formula, shape)


def _graph(formula, shape):
    """The graph of a formula and the names of the tensors that it returns."""
    with tf.Graph().as_default() as graph:
        tensors = [tf.compat.v1.placeholder(tf.float32, shape) for _ in range(4)]
        scalars = [tf.compat.v1.placeholder(tf.float32, []) for _ in range(2)]
        results = formula(*tensors, step=scalars[0], learning_rate=scalars[1])
    return graph.as_graph_def(), [result.name for result in results]
