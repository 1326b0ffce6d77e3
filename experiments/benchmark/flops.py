"""The arithmetic of a network, counted from its traced graph: convolutions and products of matrices."""

import math

import tensorflow as tf

# op -> the tensor of its forward convolution's output size, and that of the kernel's
TENSORS = {
    "Conv2D": lambda op: (op.outputs[0], op.inputs[1]),
    "Conv2DBackpropInput": lambda op: (op.inputs[2], op.inputs[1]),
    "Conv2DBackpropFilter": lambda op: (op.inputs[2], op.outputs[0]),
}
DEPTHWISE = "DepthwiseConv2dNative"


def gflop(function, *specs):
    """10^9 operations, two for a multiply-add, of one call of a `tf.function`.

    specs: `tf.TensorSpec`s of its arguments, whose shapes are wholly known. Traces anew.
    """
    traced = tf.function(function.python_function, autograph=False).get_concrete_function(*specs)
    return 2e-9 * multiply_adds(traced.graph)


def multiply_adds(graph):
    """Of what multiplies in a function's graph and, at each call, in those that it calls.

    A convolution, and either of its gradients, has one for each output number and
    kernel number that makes it; those with the zeros of padding count. The constant
    matrices that `core.lowering.fast_convolution` lays over rows do not.
    """
    total = 0
    for op in needed(graph):
        kind = op.type.replace(DEPTHWISE, "Conv2D")
        if kind in TENSORS:
            output, kernel = (tensor.shape for tensor in TENSORS[kind](op))
            # [B, H, W, O] and [h, w, I, O]; depthwise, [B, H, W, C] and [h, w, C, 1]
            total += math.prod(output) * math.prod(kernel[: 3 if kind == op.type else 2])
        elif op.type == "MatMul":  # inputs [M, K] and [K, N], or the first turned
            total += math.prod(op.outputs[0].shape) * op.inputs[0].shape[not op.get_attr("transpose_a")]
        for value in op.node_def.attr.values():
            if value.HasField("func"):
                total += multiply_adds(graph._get_function(value.func.name).graph)
    return total


def needed(graph):
    """The ops that results depend on: TensorFlow runs no others, such as gradients of images."""
    needed, found = set(), [*(output.op for output in graph.outputs), *graph.control_outputs]
    while found:
        op = found.pop()
        if op not in needed:
            needed.add(op)
            found += [*(each.op for each in op.inputs), *op.control_inputs]
    return needed
