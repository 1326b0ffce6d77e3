"""Functions that find the ops that produced a symbolic tensor, for the rules of `core.lowering`.

`tf.custom_gradient` inserts Identity ops into the graph. A rule that bypassed such an op of a model would
lose the custom gradient. The functions below therefore do not search the ops before it.

Some functions count the ops that read a tensor. Ops that read only the tensor's shape are not counted.
"""

import dataclasses
import functools

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of one call of a function in `core.lowering.primitives`.

    primitive:  the name of the function, such as "conv2d"
    x:          the input [B, H, W, C]
    kernel:     the kernel before it was cast to the dtype of x
    strides:    the stride along height and width, usually an int
    padding:    "SAME", "VALID" or a list of paddings
    """

    primitive: str
    x: tf.Tensor
    kernel: tf.Tensor
    strides: int
    padding: str


def remember(output, call):
    """Record in the graph of `output` that a call produced `output`; return `output`.

    call: a `Call`. It is recorded even if a rule of `core.lowering` computed `output` with ops other
    than TensorFlow's primitive.
    """
    graph = output.graph
    if not hasattr(graph, "lowering_calls"):
        graph.lowering_calls = {}
    graph.lowering_calls[output.name] = call
    return output


def call_that_made(x, primitives, *, uses):
    """Return the `Call` that produced x, or None.

    primitives: names of functions in `core.lowering.primitives`. The result is None if none of these
    functions produced x, or if the number of ops that read x so far is not `uses`.
    """
    call = getattr(x.graph, "lowering_calls", {}).get(x.name)
    return call if call and call.primitive in primitives and _uses(x) == uses else None


def concatenated(x):
    """Return the list of tensors [B, H, W, *] that x concatenates along the channels, or None.

    The result is None if x is not such a concatenation, if the number of channels of a part is unknown or 0,
    or if the graph already has an op that reads x.
    """
    if x.op.type != "ConcatV2" or _uses(x) > 0 or tf.get_static_value(x.op.inputs[-1]) not in (-1, 3):
        return None
    parts = list(x.op.inputs[:-1])
    return parts if all(part.shape.rank == 4 and part.shape[3] for part in parts) else None


def nearest_source(up):
    """Return the tensor [B, H, W, C] from which `core.ops.maxpool_up` computed `up`, or None.

    `maxpool_up` concatenates four copies of a tensor along the channels, and applies depth_to_space with
    block size 2. The result is None if `up` was computed in another way than this, or if several ops read
    `up` or the concatenation of the copies.
    """
    op = up.op
    if op.type != "DepthToSpace" or op.get_attr("block_size") != 2 or _uses(up) > 1:
        return None
    copies = op.inputs[0]
    if op.get_attr("data_format") != b"NHWC" or copies.op.type != "ConcatV2" or _uses(copies) > 1:
        return None
    *parts, axis = copies.op.inputs
    is_four_copies = len(parts) == 4 and all(part is parts[0] for part in parts)
    return parts[0] if is_four_copies and tf.get_static_value(axis) in (-1, 3) else None


def convolution_and_other(x):
    """Return (convolution, other) if x is a convolution or the sum of a convolution and another map.

    convolution: the output of a `Conv2D` op, with as many channels as x. other: the other map, or None if x
    is the convolution itself. The result is (None, None) if x is neither a convolution nor such a sum, if an
    op already reads x, or if an op besides the sum reads the convolution.
    """
    if x.op.type == "Conv2D" and _uses(x) == 0:
        return x, None
    if x.op.type == "AddV2" and _uses(x) == 0:
        for convolution, other in (x.op.inputs, reversed(x.op.inputs)):
            is_match = convolution.op.type == "Conv2D" and _uses(convolution) == 1
            if is_match and convolution.shape[3] == x.shape[3]:
                return convolution, other
    return None, None


def convolution_of_blocks(x):
    """Return (convolution, block size) if x is `tf.nn.depth_to_space` of a convolution; else (None, None).

    The result is also (None, None) if an op already reads x, or if an op besides `depth_to_space` reads the
    convolution.
    """
    if x.op.type != "DepthToSpace" or x.op.get_attr("data_format") != b"NHWC" or _uses(x) > 0:
        return None, None
    convolution = x.op.inputs[0]
    is_match = convolution.op.type == "Conv2D" and _uses(convolution) == 1
    return (convolution, x.op.get_attr("block_size")) if is_match else (None, None)


def before_bias(x):
    """Return (y, bias) if x is `tf.nn.bias_add(y, bias)` and exactly one op reads x; otherwise (x, None)."""
    if x.op.type == "BiasAdd" and x.op.get_attr("data_format") == b"NHWC" and _uses(x) == 1:
        return tuple(x.op.inputs)
    return x, None


def before_cast(x):
    """Return y if a graph computes x as `tf.cast(y, ...)` from a float32 tensor y; otherwise return x."""
    if tf.is_symbolic_tensor(x) and x.op.type == "Cast" and x.op.inputs[0].dtype == tf.float32:
        return x.op.inputs[0]
    return x


def height_and_width(x):
    """Return H and W of x [B, H, W, C]: two ints if the graph knows both, otherwise two int32 scalars."""
    _, height, width, _ = x.shape
    if height is None or width is None:
        _, height, width, _ = tf.unstack(tf.shape(x))
    return height, width


def _uses(x):
    """Return the number of ops that read x in the graph so far. Shape ops are not counted."""
    return sum(op.type != "Shape" for op in set(x.consumers()))


def custom_gradient(function):
    """Decorator like `tf.custom_gradient` that names the backward ops after the scope of the forward call.

    function: (tensors) -> (result, gradient function), as for `tf.custom_gradient`. The prefix of the
    backward ops is "gradient_tape/SCOPE", as for the gradients of TensorFlow's own ops. With these names,
    profiles and graph viewers can attribute each backward op to a forward call.
    """

    @tf.custom_gradient
    @functools.wraps(function)
    def scoped(*args):
        scope = "/".join(filter(None, ["gradient_tape", tf.get_current_name_scope()]))
        result, gradient = function(*args)

        def scoped_gradient(upstream):
            upstream = tf.convert_to_tensor(upstream)  # it may be an IndexedSlices, as from tf.gather
            upstream.set_shape(result.shape)  # some ops, such as tf.py_function, lose the static shape
            with tf.name_scope(f"{scope}/"):
                return gradient(upstream)

        return result, scoped_gradient

    return scoped
