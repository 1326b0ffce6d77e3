"""Use TensorFlow's fused op for Adam as long as `core.training.optimizer.adam` computes the op's formula.

The function `adam` adds about a dozen small ops per variable to the graph of the training step. The fused
op, ResourceApplyAdam, is a single op per variable. `computes` compares the graph of `adam` with the graph of
`_formula`, which is the formula of the fused op. After an edit of the formula in `adam`, the two graphs
differ. The optimizer then calls `adam` instead of the fused op.
"""

import functools

import tensorflow as tf


def computes(formula, shape, beta1, beta2, epsilon):
    """True if the fused op computes `formula` for a variable of this shape.

    formula: a function with the arguments and results of `core.training.optimizer.adam`. The formula
    is traced in a new graph. This graph is compared, op for op and constant for constant, with the graph of
    `_formula`. The result is also False if tracing fails. beta1, beta2, epsilon: floats.
    """
    try:
        return _graph(formula, shape) == _expected(beta1, beta2, epsilon)
    except Exception:  # an edited formula may use tensors of the training step, which the new graph lacks
        return False


def arguments(step, learning_rate, beta1, beta2, epsilon):
    """Return the arguments of the fused op that are the same for all variables: name -> scalar tensor.

    step: float32 scalar, 1 in the first step. learning_rate: float32 scalar. beta1, beta2, epsilon: floats.
    """
    step_arguments = {"beta1_power": beta1**step, "beta2_power": beta2**step, "lr": learning_rate}
    constants = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
    return step_arguments | {name: tf.cast(value, tf.float32) for name, value in constants.items()}


def apply(weight, mean, square, gradient, arguments):
    """Update the variables weight, mean and square in place by one step of Adam.

    mean, square: the moving averages of the gradient and of the squared gradient. arguments: the dict that
    the function `arguments` returns.
    """
    tf.raw_ops.ResourceApplyAdam(
        var=weight.handle, m=mean.handle, v=square.handle, grad=gradient, **arguments
    )


def _formula(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon):
    """Return (weight, mean, square) after one step of Adam, computed as ResourceApplyAdam computes them.

    On a CPU, the results are bit-identical to the results of this op. To change the optimizer, edit
    `core.training.optimizer.adam` instead of this function.
    """
    mean = mean + (gradient - mean) * (1 - tf.cast(beta1, tf.float32))
    square = square + (tf.square(gradient) - square) * (1 - tf.cast(beta2, tf.float32))
    rate = learning_rate * tf.sqrt(1 - beta2**step) / (1 - beta1**step)
    return weight - mean * rate / (tf.sqrt(square) + epsilon), mean, square


@functools.cache
def _expected(beta1, beta2, epsilon):
    """Return the result of `_graph` for `_formula` with these constants."""

    def formula(weight, mean, square, gradient, *, step, learning_rate):
        return _formula(weight, mean, square, gradient, step, learning_rate, beta1, beta2, epsilon)

    return _graph(formula, [])


def _graph(formula, shape):
    """Trace a formula in a new graph; return (GraphDef, names of the tensors that the formula returns).

    formula: see `computes`. shape: the shape of the variable. Results for different shapes are equal,
    unless the formula depends on the shape.
    """
    with tf.Graph().as_default() as graph:
        tensors = [tf.compat.v1.placeholder(tf.float32, shape) for _ in range(4)]
        scalars = [tf.compat.v1.placeholder(tf.float32, []) for _ in range(2)]
        results = formula(*tensors, step=scalars[0], learning_rate=scalars[1])
    definition = graph.as_graph_def()
    for node in definition.node:
        node.attr.pop("shape", None)  # the shapes of placeholders are not compared
    return definition, [result.name for result in results]
