"""Count the floating-point operations of a network in its traced graph.

The operations of convolutions, of the gradients of convolutions, of matrix products and of `tf.einsum` with
two inputs are counted. The operations of all other TensorFlow ops are not counted.
"""

import math

import tensorflow as tf

# The keys are the types of ops that compute a convolution or a gradient of a convolution. The values are
# functions that return two tensors of such an op. The first tensor has the shape of the convolution's output.
# The second tensor has the shape of the convolution's kernel.
TENSORS = {
    "Conv2D": lambda op: (op.outputs[0], op.inputs[1]),
    "Conv2DBackpropInput": lambda op: (op.inputs[2], op.inputs[1]),
    "Conv2DBackpropFilter": lambda op: (op.inputs[2], op.outputs[0]),
}
DEPTHWISE = "DepthwiseConv2dNative"
# Type of op -> name of the attribute that is true if the first matrix is transposed.
TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}


def gflop(function, *specs):
    """Return the number of floating-point operations of one call of a `tf.function`, divided by 10^9.

    A multiply-add counts as two operations. specs: a `tf.TensorSpec` with a fully known shape for each
    argument. The function is traced anew for these specs, without AutoGraph.
    """
    traced = tf.function(function.python_function, autograph=False).get_concrete_function(*specs)
    return 2e-9 * multiply_adds(needed_ops(traced.graph))


def multiply_adds(ops):
    """Return the number of multiply-adds of graph ops, including the ops in functions that these ops call.

    A convolution has one multiply-add for each pair of an output element and a kernel element that
    contributes to this output element. Products with padding are counted. The gradient with respect to the
    input has as many multiply-adds as the convolution, and so has the gradient with respect to the kernel.
    All branches of `tf.cond` are counted, and the body of a loop is counted once.
    """
    total = 0
    for op in ops:
        kind = op.type.replace(DEPTHWISE, "Conv2D")
        if kind in TENSORS:
            output, kernel = (tensor.shape for tensor in TENSORS[kind](op))
            # output [B, H, W, O] and kernel [h, w, I, O]; depthwise: output [B, H, W, C], kernel [h, w, C, 1]
            total += math.prod(output) * math.prod(kernel[: 3 if kind == op.type else 2])
        elif op.type in TRANSPOSED:  # shapes [..., M, K] @ [..., K, N]
            inner = op.inputs[0].shape[-2 if op.get_attr(TRANSPOSED[op.type]) else -1]
            total += math.prod(op.outputs[0].shape) * inner
        elif op.type == "Einsum" and len(op.inputs) == 2:
            total += math.prod(_einsum_sizes(op).values())
        for value in op.node_def.attr.values():
            functions = [value.func] if value.HasField("func") else value.list.func
            for each in functions:
                total += multiply_adds(needed_ops(op.graph._get_function(each.name).graph))
    return total


def _einsum_sizes(op):
    """Return the sizes of the dimensions of an Einsum op's inputs, a dict: label of a dimension -> size.

    The dimensions that "..." stands for have the labels 1, 2, and so on, from the right.
    """
    sizes = {}
    terms = op.get_attr("equation").decode().partition("->")[0].split(",")
    for term, tensor in zip(terms, op.inputs):
        before, _, after = term.partition("...")
        hidden = range(tensor.shape.rank - len(before) - len(after), 0, -1) if "..." in term else ()
        for label, size in zip([*before, *hidden, *after], tensor.shape):
            sizes[label] = max(size, sizes.get(label, 1))  # dimensions of "..." may be broadcast from size 1
    return sizes


def needed_ops(graph):
    """Return the set of ops that the outputs and control outputs of a function graph depend on.

    TensorFlow runs only these ops of the graph.
    """
    return ancestors([*(output.op for output in graph.outputs), *graph.control_outputs])


def ancestors(ops):
    """Return the set of the given graph ops and of all ops that they depend on."""
    found, waiting = set(), list(ops)
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [*(each.op for each in op.inputs), *op.control_inputs]
    return found
