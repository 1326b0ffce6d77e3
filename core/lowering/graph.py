"""What produced a symbolic tensor: the facts that lowering rules match on.

Nothing here looks through the identity ops that `tf.custom_gradient` leaves: behind one
stands a gradient that a rewrite would lose.
"""

import dataclasses
import functools

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a drop-in primitive, as it was made.

    primitive: the drop-in's name; x, kernel: its tensors, the kernel before a cast to x's
    dtype; strides: int; padding: "SAME" or "VALID".
    """

    primitive: str
    x: tf.Tensor
    kernel: tf.Tensor
    strides: int
    padding: str


def remember(output, call):
    """Keep with a graph that `call` produced the tensor `output`, rewritten or not; returns output."""
    graph = output.graph
    if not hasattr(graph, "lowering_calls"):
        graph.lowering_calls = {}
    graph.lowering_calls[output.name] = call
    return output


def call_that_made(x, primitives, *, uses):
    """The `Call` of one of some primitives whose output x is, if so many ops use x; otherwise None."""
    call = getattr(x.graph, "lowering_calls", {}).get(x.name)
    return call if call and call.primitive in primitives and _uses(x) == uses else None


def concatenated(x):
    """The tensors [B, H, W, *] whose channels x concatenates, if nothing else uses x; otherwise None."""
    if x.op.type != "ConcatV2" or _uses(x) > 0:
        return None
    return list(x.op.inputs[:-1]) if tf.get_static_value(x.op.inputs[-1]) in (-1, 3) else None


def nearest_source(up):
    """[B, H, W, C] that `core.ops.maxpool_up` doubled to `up`, if one concatenation alone uses that.

    The form it recognises is depth_to_space of four copies along the channels. None for
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
    """(tensor, bias) if x is `tf.nn.bias_add` of them and used by one op alone; otherwise (x, None)."""
    if x.op.type == "BiasAdd" and x.op.get_attr("data_format") == b"NHWC" and _uses(x) == 1:
        return tuple(x.op.inputs)
    return x, None


def before_cast(x):
    """The float32 tensor that x is a cast of, or x itself."""
    if tf.is_symbolic_tensor(x) and x.op.type == "Cast" and x.op.inputs[0].dtype == tf.float32:
        return x.op.inputs[0]
    return x


def _uses(x):
    """How many ops take x's values so far; asking for its shape is no use."""
    return sum(op.type != "Shape" for op in set(x.consumers()))


def custom_gradient(function):
    """`tf.custom_gradient` that gives the gradient's ops the name scope of the call, as TensorFlow does.

    Profiles and graph views then show which call a backward op belongs to.
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
