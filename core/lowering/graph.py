"""Find out which ops produced a symbolic tensor, for the patterns of lowering rules.

No function here looks through the Identity ops that `tf.custom_gradient` inserts: a rewrite
across one would lose the custom gradient.
"""

import dataclasses
import functools

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a drop-in primitive with its arguments.

    primitive: the drop-in's name; x, kernel: its tensors, the kernel before a cast to x's
    dtype; strides: int; padding: "SAME" or "VALID".
    """

    primitive: str
    x: tf.Tensor
    kernel: tf.Tensor
    strides: int
    padding: str


def remember(output, call):
    """Record in the graph that `call` produced the tensor `output`, rewritten or not; return output."""
    graph = output.graph
    if not hasattr(graph, "lowering_calls"):
        graph.lowering_calls = {}
    graph.lowering_calls[output.name] = call
    return output


def call_that_made(x, primitives, *, uses):
    """Return the `Call` of one of the primitives that produced x, if exactly `uses` ops read x; else None."""
    call = getattr(x.graph, "lowering_calls", {}).get(x.name)
    return call if call and call.primitive in primitives and _uses(x) == uses else None


def concatenated(x):
    """Return the tensors [B, H, W, *] that x concatenates along channels if x has no other use, else None."""
    if x.op.type != "ConcatV2" or _uses(x) > 0:
        return None
    return list(x.op.inputs[:-1]) if tf.get_static_value(x.op.inputs[-1]) in (-1, 3) else None


def nearest_source(up):
    """Return the input [B, H, W, C] that `core.ops.maxpool_up` up-sampled to `up`, if only one op reads `up`.

    The recognised pattern is depth_to_space of four copies along the channels. Returns None for
    every other tensor.
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


def before_bias(x):
    """Return (tensor, bias) if x is their `tf.nn.bias_add` and only one op reads x; otherwise (x, None)."""
    if x.op.type == "BiasAdd" and x.op.get_attr("data_format") == b"NHWC" and _uses(x) == 1:
        return tuple(x.op.inputs)
    return x, None


def before_cast(x):
    """Return the float32 tensor that x is a cast of, or x itself."""
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
    """Return how many ops read x's values so far; ops that read only its shape do not count."""
    return sum(op.type != "Shape" for op in set(x.consumers()))


def custom_gradient(function):
    """Wrap `tf.custom_gradient` so that the gradient's ops are named after the scope of the call.

    TensorFlow names the gradients of its own ops in the same way. Profiles and graph viewers can then
    attribute a backward op to its call.
    """

    @tf.custom_gradient
    @functools.wraps(function)
    def scoped(*args):
        scope = "/".join(filter(None, ["gradient_tape", tf.get_current_name_scope()]))
        result, gradient = function(*args)

        def scoped_gradient(upstream):
            with tf.name_scope(f"{scope}/"):
                return gradient(upstream)

        return result, scoped_gradient

    return scoped
