"""The FLOPs of a network, counted from its traced graph.

Convolutions, their gradients and products of matrices count; element-wise ops do not.
"""

import math

import tensorflow as tf

# op -> (the tensor of the forward convolution's output shape, the tensor of its kernel's shape)
TENSORS = {
    "Conv2D": lambda op: (op.outputs[0], op.inputs[1]),
    "Conv2DBackpropInput": lambda op: (op.inputs[2], op.inputs[1]),
    "Conv2DBackpropFilter": lambda op: (op.inputs[2], op.outputs[0]),
}
DEPTHWISE = "DepthwiseConv2dNative"
# op -> the attribute that says whether the first matrix is transposed
TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}


def gflop(function, *specs):
    """GFLOP (10^9 operations, a multiply-add counts as two) of one call of a `tf.function`.

    specs: `tf.TensorSpec`s of its arguments with fully known shapes. The function is traced anew.
    """
    traced = tf.function(function.python_function, autograph=False).get_concrete_function(*specs)
    return 2e-9 * multiply_adds(needed_ops(traced.graph))


def multiply_adds(ops):
    """The number of multiply-adds of graph ops, which includes the functions that they call.

    A convolution and each of its gradients has one multiply-add for every pair of an output
    element and a kernel element that contributes to it. Products with padding count.
    """
    total = 0
    for op in ops:
        kind = op.type.replace(DEPTHWISE, "Conv2D")
        if kind in TENSORS:
            output, kernel = (tensor.shape for tensor in TENSORS[kind](op))
            # [B, H, W, O] and [h, w, I, O]; depthwise: [B, H, W, C] and [h, w, C, 1]
            total += math.prod(output) * math.prod(kernel[: 3 if kind == op.type else 2])
        elif op.type in TRANSPOSED:  # [..., M, K] @ [..., K, N]
            inner = op.inputs[0].shape[-2 if op.get_attr(TRANSPOSED[op.type]) else -1]
            total += math.prod(op.outputs[0].shape) * inner
        elif op.type == "Einsum" and len(op.inputs) == 2:
            total += math.prod(_einsum_sizes(op).values())
        for value in op.node_def.attr.values():
            if value.HasField("func"):
                total += multiply_adds(needed_ops(op.graph._get_function(value.func.name).graph))
    return total


def _einsum_sizes(op):
    """Label -> size for an Einsum op; the dimensions of an ellipsis are numbered from the right."""
    sizes = {}
    terms = op.get_attr("equation").decode().partition("->")[0].split(",")
    for term, tensor in zip(terms, op.inputs):
        before, _, after = term.partition("...")
        hidden = range(tensor.shape.rank - len(before) - len(after), 0, -1) if "..." in term else ()
        for label, size in zip([*before, *hidden, *after], tensor.shape):
            sizes[label] = max(size, sizes.get(label, 1))  # an ellipsis may broadcast
    return sizes


def needed_ops(graph):
    """The set of ops that a function graph's results depend on. TensorFlow runs only these."""
    return ancestors([*(output.op for output in graph.outputs), *graph.control_outputs])


def ancestors(ops):
    """The set of some graph ops and all ops that they depend on."""
    found, waiting = set(), list(ops)
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [*(each.op for each in op.inputs), *op.control_inputs]
    return found
