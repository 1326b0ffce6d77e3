"""Measure milliseconds and bytes of every operation of a training step with TensorFlow's profiler."""

import collections
import dataclasses
import pathlib
import tempfile

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from core import lowering
from experiments.benchmark import operations

WARM_UP_STEPS = 2
FORWARD, BACKWARD = PASSES = ("forward", "backward")
REST = None  # the call number of ops outside of all operations: the loss and the summation of gradients


@dataclasses.dataclass
class Cost:
    """The milliseconds that an operation's ops took in a step, and the bytes that they allocated."""

    milliseconds: float = 0.0
    allocated: float = 0.0


def measure(experiment, weights, images, *, steps):
    """Return the costs of training steps without the optimizer, and the lowering rules that were applied.

    Returns (mode -> (one of PASSES, number of the call or REST) -> `Cost`, rule -> applications), with
    the lowering modes "off" and "auto". images: float [B, H, W, 3] 0..255; their dtype is the
    dtype of the pass. steps: number of profiled steps per mode; the modes alternate, and the smallest
    milliseconds of each operation are returned. Concurrent ops share the cores, so the sum of the
    milliseconds may exceed the duration of a step. Only ops on CPUs are measured.
    """
    with lowering.disabled():
        traced = {"off": _training_step(experiment, weights, images)}
    before = lowering.applied()
    traced["auto"] = _training_step(experiment, weights, images)
    rules = lowering.applied() - before
    profiles = {mode: [] for mode in traced}
    for _ in range(steps):
        for mode, (step, owners) in traced.items():
            profiles[mode].append(_profile(step, owners))
    return {mode: _least(each) for mode, each in profiles.items()}, rules


def _profile(step, owners):
    """Return (one of PASSES, number of the call or REST) -> `Cost` of one step."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    costs = collections.defaultdict(Cost)
    for kind, name, value in (event for plane in space.planes for event in _events(plane)):
        cost = costs[_owner(name, owners)]
        setattr(cost, kind, getattr(cost, kind) + value)
    return costs


def _least(profiles):
    """Return the smallest milliseconds and bytes of every operation over several profiles."""
    owners = {owner: None for costs in profiles for owner in costs}
    return collections.defaultdict(
        Cost,
        {
            owner: Cost(
                min(costs[owner].milliseconds for costs in profiles),
                min(costs[owner].allocated for costs in profiles),
            )
            for owner in owners
        },
    )


def _training_step(experiment, weights, images):
    """Return a function () -> None that runs one step, and op name -> (one of PASSES, call number)."""
    trained = [variable for variable in weights.values() if variable.trainable]
    masks = tf.zeros(images.shape[:3], tf.uint8)
    seed = tf.constant([0, 0], tf.int64)
    owners = {}

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
        owners.update(_owners(FORWARD, forward))
        # in the backward pass, the gradient of a model's op follows the gradient of the preceding call
        owners.update(_owners(BACKWARD, graph.get_operations()[: before - 1 : -1]))
        return gradients

    def run():
        step(images, masks, seed)[0].numpy()

    for _ in range(WARM_UP_STEPS):
        run()
    return run, owners


def _owners(direction, graph_ops):
    """Return op name -> (direction, number of the call); a model's op belongs to the preceding call."""
    owners, current = {}, -1
    for op in graph_ops:
        index = operations.index_of(op.name)
        current = current if index is None else index
        owners[op.name] = direction, REST if "loss/" in op.name else current
    return owners


def _owner(name, owners):
    """Return (one of PASSES, call number or REST) of an executed op, even if optimisation renamed it."""
    if name in owners:
        return owners[name]
    return (BACKWARD if "gradient_tape" in name else FORWARD), operations.index_of(name)


def _events(plane):
    """Yield (field of `Cost`, op name, value) for the events of CPU ops in a profile."""
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
