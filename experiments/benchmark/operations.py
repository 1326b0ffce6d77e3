"""List the operations of a network from its traced graph.

An operation is a call of a public function of `core.ops` by the model, together with the TensorFlow ops that
the model itself makes between this call and the next call, such as an activation or a concatenation. Calls
are numbered from 0, in the order of the forward pass. The TensorFlow ops before the first call, such as the
scaling of the images, form an additional operation with the number -1.
"""

import contextlib
import dataclasses
import functools
import re

import tensorflow as tf

from core import ops
from experiments.benchmark import flops

SCOPE = "operation"  # the calls have the name scopes operation0, operation1, ...
# types of TensorFlow ops that the names of operations omit
PASSIVE = ("Cast", "Identity", "StopGradient")


@dataclasses.dataclass
class Operation:
    """An operation of a network.

    index:          the number of the call; -1 for the ops before the first call.
    name:           the name of the called function, and the types of the ops between this and the next call.
    weights:        names of the variables that the operation reads.
    parameters:     the number of elements of these variables.
    multiply_adds:  the number of multiply-adds of the operation.
    output:         the symbolic output of the operation's last TensorFlow op, usually [B, H, W, C].
    """

    index: int
    name: str
    weights: tuple[str, ...]
    parameters: int
    multiply_adds: int
    output: tf.Tensor


@contextlib.contextmanager
def scopes():
    """Context manager in which each call of a public function of `core.ops` has a name scope of its own.

    Yields a list. Each call appends the name of the called function to this list. If a function of `core.ops`
    calls another function of `core.ops`, the inner call has no scope of its own and is not in the list. The
    name of a gradient op contains the scope of the call whose gradient the op computes.
    """
    # `callable`, because an op with the decorator `tf.custom_gradient` is not a Python function
    public = {name: value for name, value in vars(ops).items() if callable(value) and name[0] != "_"}
    calls, inside = [], False

    def scoped(name, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            nonlocal inside
            if inside:
                return function(*args, **kwargs)
            calls.append(name)
            inside = True
            try:
                with tf.name_scope(f"{SCOPE}{len(calls) - 1}"):
                    return function(*args, **kwargs)
            finally:
                inside = False

        return call

    try:
        for name, function in public.items():
            setattr(ops, name, scoped(name, function))
        yield calls
    finally:
        for name, function in public.items():
            setattr(ops, name, function)


def index_of(op_name):
    """Return the number of the call that made a TensorFlow op; None for an op made outside of all calls.

    op_name: the op's name, which contains the scope of the call.
    """
    match = re.search(rf"{SCOPE}(\d+)", op_name)
    return int(match[1]) if match else None


def by_call(images, logits):
    """Return a dict: `Operation.index` -> list of the operation's TensorFlow ops, in order of creation.

    The lists contain only ops that depend on the images, contribute to the logits, and have a floating-point
    result. images, logits: the symbolic input and output of a forward pass that was traced in the
    context of `scopes`.
    """
    needed, depending, groups, current = flops.ancestors([logits.op]), {images.op}, {}, -1
    for op in logits.graph.get_operations():  # in order of creation: an op comes after the ops of its inputs
        index = index_of(op.name)
        current = current if index is None else index
        is_value = op.outputs and op.outputs[0].dtype.is_floating
        if is_value and any(each.op in depending for each in op.inputs):
            depending.add(op)
            if op in needed:
                groups.setdefault(current, []).append(op)
    return groups


def of_network(forward, weights, shape, *, training=False):
    """Return the list of `Operation`s of a forward pass, in the order of the calls.

    forward: as in `core.experiment.Experiment`. weights: name -> `tf.Variable`. shape: the shape [B, H, W, 3]
    of the images, which are float32. training: whether to trace the forward pass of training.
    """
    with scopes() as calls:
        function = tf.function(
            lambda images: forward(weights, images, training=training, seed=tf.constant([0, 0], tf.int64)),
            autograph=False,
        )
        graph = function.get_concrete_function(tf.TensorSpec(shape)).graph
    names = {id(variable.handle): name for name, variable in weights.items()}
    variables = {inner.op: names[id(outer)] for outer, inner in graph.captures if id(outer) in names}
    groups = by_call(graph.inputs[0], graph.outputs[0])
    depending = {op for group in groups.values() for op in group}
    operations = []
    for index, group in sorted(groups.items()):
        read = _variables(group, depending, variables)
        types = [op.type for op in group if index_of(op.name) is None and op.type not in PASSIVE]
        operations.append(
            Operation(
                index=index,
                name=", ".join([*calls[max(index, 0) : index + 1], *types]),
                weights=tuple(read),
                parameters=sum(weights[name].shape.num_elements() for name in read),
                multiply_adds=flops.multiply_adds(group),
                output=group[-1].outputs[0],
            )
        )
    return operations


def _variables(group, depending, variables):
    """Return a list of the names of the variables that an operation reads.

    An operation may read a variable directly. It may also read a value that ops outside of all operations
    compute from the variable, for example a cast of a kernel.

    group: the operation's TensorFlow ops. depending: the TensorFlow ops of all operations; all of them depend
    on the images. variables: a dict: op that stands for a variable in the graph -> name of the variable.
    """
    names, seen, waiting = {}, set(), [each.op for op in group for each in op.inputs]
    while waiting:
        op = waiting.pop(0)
        if op not in seen and op not in depending:
            seen.add(op)
            if op in variables:
                names[variables[op]] = None
            waiting += [each.op for each in op.inputs]
    return list(names)
