"""Measure, with TensorFlow's profiler, the time and memory of each operation of a training step.

`experiments.benchmark.operations` defines what an operation is. The costs are stored in dicts. Each key of
these dicts is a pair: one of PASSES, and the number of the operation, `Operation.index`. For TensorFlow ops
that belong to no operation, the second item of the key is REST.
"""

import collections
import dataclasses
import pathlib
import tempfile

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from core import lowering
from experiments.benchmark import operations

WARM_UP_STEPS = 2  # number of steps that run before the profiled steps
FORWARD, BACKWARD = PASSES = ("forward", "backward")
REST = None  # second item of the key of TensorFlow ops that belong to no operation, such as ops of the loss


@dataclasses.dataclass
class Cost:
    """The cost of an operation in the forward or the backward pass of one step.

    milliseconds: the sum of the durations of the operation's TensorFlow ops. allocated: the number of bytes
    that these ops allocated.
    """

    milliseconds: float = 0.0
    allocated: float = 0.0


def measure(experiment, weights, images, *, steps):
    """Measure the costs of all operations in training steps without the optimizer; return (costs, rules).

    costs: a dict: mode of `core.lowering`, "off" or "auto" -> dict of key -> `Cost`. The module's docstring
    describes the keys. A `Cost` holds the smallest milliseconds and the smallest number of bytes that any
    profiled step needed for the key.
    rules: name of a rule of `core.lowering` -> how often the rule was applied in the mode "auto".

    experiment: the `Experiment` with the forward pass and the loss. weights: name -> `tf.Variable`. images:
    float [B, H, W, 3], 0..255. The dtype of the images is the dtype of the activations. steps: the number of
    profiled steps for each mode. Steps of the two modes alternate. Only ops on CPUs are measured. Ops that
    run at the same time share the cores, so the sum of the milliseconds over all keys may exceed the duration
    of a step.
    """
    with lowering.disabled():
        traced = {"off": _training_step(experiment, weights, images)}
    before = lowering.applied()
    traced["auto"] = _training_step(experiment, weights, images)
    rules = lowering.applied() - before
    profiles = {mode: [] for mode in traced}
    for _ in range(steps):
        for mode, (step, keys) in traced.items():
            profiles[mode].append(_profile(step, keys))
    return {mode: _least(each) for mode, each in profiles.items()}, rules


def _profile(step, keys):
    """Profile one call of step(); return a dict of key -> `Cost`. keys: name of a TensorFlow op -> key."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    costs = collections.defaultdict(Cost)
    for kind, name, value in (event for plane in space.planes for event in _events(plane)):
        cost = costs[_key(name, keys)]
        setattr(cost, kind, getattr(cost, kind) + value)
    return costs


def _least(profiles):
    """Return a dict of key -> `Cost` with the smallest milliseconds and bytes of each key over all profiles.

    profiles: list of dicts as returned by `_profile`, one per step.
    """
    keys = {key: None for costs in profiles for key in costs}
    return collections.defaultdict(
        Cost,
        {
            key: Cost(
                min(costs[key].milliseconds for costs in profiles),
                min(costs[key].allocated for costs in profiles),
            )
            for key in keys
        },
    )


def _training_step(experiment, weights, images):
    """Trace a training step without the optimizer, and run it WARM_UP_STEPS times; return (run, keys).

    run: a function () -> None that runs the step. keys: name of a TensorFlow op of the step -> key.
    experiment, weights, images: as described in `measure`.
    """
    trained = [variable for variable in weights.values() if variable.trainable]
    masks = tf.zeros(images.shape[:3], tf.uint8)
    seed = tf.constant([0, 0], tf.int64)
    keys = {}

    @tf.function(autograph=False)
    def step(images, masks, seed):
        graph = tf.compat.v1.get_default_graph()
        with tf.GradientTape() as tape:
            with operations.scopes():
                logits = experiment.forward(weights, images, training=True, seed=seed)
            forward = graph.get_operations()
            with tf.name_scope("loss"):
                loss = tf.reduce_mean(experiment.loss(tf.cast(logits, tf.float32), masks))
        before = len(graph.get_operations())
        gradients = tape.gradient(loss, trained)
        keys.update(_keys(FORWARD, forward))
        # gradient ops are created from the last operation to the first, so the slice reverses their order
        keys.update(_keys(BACKWARD, graph.get_operations()[: before - 1 : -1]))
        return loss, gradients

    def run():
        step(images, masks, seed)[0].numpy()

    for _ in range(WARM_UP_STEPS):
        run()
    return run, keys


def _keys(direction, graph_ops):
    """Return a dict for the TensorFlow ops of one pass: name of the op -> key.

    direction: one of PASSES. graph_ops: the ops of this pass, sorted from the network's first operation to
    its last one, also for the backward pass. An op of the loss belongs to no operation. An op inside of a
    call belongs to the operation of this call. Any other op belongs to the operation of the last op before it
    that is inside of a call, or to operation -1 if there is no such op.
    """
    keys, current = {}, -1
    for op in graph_ops:
        index = operations.index_of(op.name)
        current = current if index is None else index
        keys[op.name] = direction, REST if "loss/" in op.name else current
    return keys


def _key(name, keys):
    """Return the key of an executed TensorFlow op. name: the name of the op. keys: name of an op -> key.

    `keys` lacks ops that TensorFlow's graph optimisation created. The key of such an op is derived from the
    name of the op.
    """
    if name in keys:
        return keys[name]
    return (BACKWARD if "gradient_tape" in name else FORWARD), operations.index_of(name)


def _events(plane):
    """Yield (field of `Cost`, name of a TensorFlow op, value) for the events of CPU ops in a profiler plane.

    plane: an `XPlane`, a part of the profile. If an event is the execution of an op, the field is
    "milliseconds", and the value is the duration. If an event is an allocation of memory, the field is
    "allocated", and the value is the number of bytes.
    """
    for line in plane.lines:
        for event in line.events:
            metadata = plane.event_metadata[event.metadata_id]
            name, _, kind = metadata.name.rpartition(":")
            if name and kind == metadata.display_name:
                yield "milliseconds", name, event.duration_ps / 1e9
            elif metadata.name == "MemoryAllocation":
                stats = {plane.stat_metadata[each.metadata_id].name: each for each in event.stats}
                if "tf_op" in stats:
                    op = plane.stat_metadata[stats["tf_op"].ref_value].name
                    yield "allocated", op.rpartition(":")[0] or op, stats["requested_bytes"].int64_value
