"""Run Adam's formula as TensorFlow's fused op if the formula is exactly the one of that op.

The plain formula creates a dozen small ops per variable, the fused op only one. Like the
rewrites of convolutions, it depends on the traced graph: if `core.training.optimizer.adam`
is edited, its graph differs from the graph of `_formula`, and the edited formula runs.
"""

import functools

import tensorflow as tf


def computes(formula, shape, beta1, beta2, epsilon):
    """True if the fused op computes `formula` for a variable of this shape.

    formula: a function like `core.training.optimizer.adam`. Its traced graph is compared, op for
    op and constant for constant, with the graph of the fused op's formula.
    """
    try:
        return _graph(formula, shape) == _expected(beta1, beta2, epsilon)
    except Exception:  # an edited formula may depend on tensors that do not exist in this separate graph
        return False


def arguments(step, learning_rate, beta1, beta2, epsilon):
    """Return the fused op's arguments that all variables share: name -> scalar tensor."""
    step_arguments = {"beta1_power": beta1**step, "beta2_power": beta2**step, "lr": learning_rate}
    constants = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
    return step_arguments | {name: tf.constant(value) for name, value in constants.items()}


def apply(weight, mean, square, gradient, arguments):
    """Update the variables weight, mean and square in place by one step of Adam."""
    tf.raw_ops.ResourceApplyAdam(
        var=weight.handle, m=mean.handle, v=square.handle, grad=gradient, **arguments
    )


def _formula(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon):
    """The formula of ResourceApplyAdam, with its order of roundings. For edits, see `optimizer.adam`."""
    mean = mean + (gradient - mean) * (1 - tf.constant(beta1))
    square = square + (tf.square(gradient) - square) * (1 - tf.constant(beta2))
    rate = learning_rate * tf.sqrt(1 - beta2**step) / (1 - beta1**step)
    return weight - mean * rate / (tf.sqrt(square) + epsilon), mean, square


@functools.cache
def _expected(beta1, beta2, epsilon):
    """Return the `_graph` of `_formula` with these constants."""

    def formula(weight, mean, square, gradient, *, step, learning_rate):
        return _formula(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon)

    return _graph(formula, [])


def _graph(formula, shape):
    """Return a formula's graph as comparable values: its ops, and the names of the returned tensors.

    shape: the shape of the variable. It is not a part of the result, unless the formula depends on it.
    """
    with tf.Graph().as_default() as graph:
        tensors = [tf.compat.v1.placeholder(tf.float32, shape) for _ in range(4)]
        scalars = [tf.compat.v1.placeholder(tf.float32, []) for _ in range(2)]
        results = formula(*tensors, step=scalars[0], learning_rate=scalars[1])
    definition = graph.as_graph_def()
    for node in definition.node:
        node.attr.pop("shape", None)  # only the placeholders have this attribute
    return definition, [result.name for result in results]
