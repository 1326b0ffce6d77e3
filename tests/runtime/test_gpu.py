"""Every op of a training step and of a prediction has a GPU kernel; a CPU can check this.

TensorFlow would silently run an op without a GPU kernel on the host and copy its tensors back and forth. Some
ops have a registered GPU kernel that computes on the host, such as the reshaping of int32. The tests do not
detect such ops.
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from core import lowering
from core.data import augment, resident
from core.inference.evaluate import make_predict
from core.runtime import cli, device
from core.training import optimizer, step
from experiments import article

PRECISIONS = {
    "cityscape_road": tf.float16,  # with loss scaling
    "oxford_pets": tf.bfloat16,
    "oxford_pets_mobilenet": tf.bfloat16,
    "cityscapes_labels": tf.bfloat16,
    "dubai_aerial": tf.bfloat16,
}


def has_gpu_kernel(node):
    """Return whether TensorFlow has a GPU kernel for the op and dtypes of a graph node."""
    return any(
        kernel.device_type in ("GPU", "DEFAULT")
        and all(node.attr[each.name].type in each.allowed_values.list.type for each in kernel.constraint)
        for kernel in kernels_of(node.op)
    )


@functools.cache  # TensorFlow searches all of its kernels: about a millisecond per op
def kernels_of(op):
    return kernels.get_registered_kernels_for_op(op).kernel


def ops_on_host(function):
    """Return the set of the ops of a concrete function that have no GPU kernel.

    An item of the set is a tuple: the type of the op, then one number per attribute, which is the attribute's
    dtype, or 0 if the attribute is no dtype. String constants are left out. Skips the test if this TensorFlow
    has no GPU kernels.
    """
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    if not any(kernel.device_type == "GPU" for kernel in kernels_of("Conv2D")):
        pytest.skip("this TensorFlow has no GPU kernels")
    nodes = [node for node in nodes if not (node.op == "Const" and node.attr["dtype"].type == tf.string)]
    nodes = [node for node in nodes if not has_gpu_kernel(node)]
    return {(node.op, *(each.type for each in node.attr.values())) for node in nodes}


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_op_of_training_and_prediction_has_a_gpu_kernel(name, small_articles):
    script, dtype = article(name), PRECISIONS[name]
    arguments = ["--train_encoder"] if name == "oxford_pets_mobilenet" else []
    experiment = script.experiment(cli.parse(script.define_flags, arguments))
    weights = experiment.init_weights(seed=0)
    slots, averages = optimizer.init_slots(weights, dtype), optimizer.init_averages(weights)
    recipe = step.Recipe(
        1e-3, clip_norm=1, weight_decay=0.1, schedule="cosine", warmup_steps=2, dice=1, ema_decay=0.9
    )
    train_step = step.make_train_step(experiment, weights, slots, averages, dtype, recipe)
    predict = make_predict(experiment, weights, dtype)
    with lowering.disabled():  # as on a machine with a GPU
        assert not ops_on_host(train_step.get_concrete_function())
        assert not ops_on_host(predict.get_concrete_function(tf.TensorSpec([None, None, None, 3], tf.uint8)))


@pytest.mark.parametrize("visible, warns", [(None, True), ("0,1", True), ("", False), ("-1", False)])
def test_a_warning_names_a_gpu_that_tensorflow_does_not_find(monkeypatch, capsys, visible, warns):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(device, "DRIVERS", (__file__,))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert "CPU" in device.set_up(SimpleNamespace(deterministic=False, xla=False))
    assert ("does not find this machine's NVIDIA GPU" in capsys.readouterr().out) == warns


@pytest.mark.parametrize("strategy, count", [("single", 1), ("mirrored", 8)])
def test_device_name_counts_the_gpus_of_the_strategy(monkeypatch, strategy, count):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: 8 * [kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "H"})
    flags = SimpleNamespace(deterministic=False, xla=False, strategy=strategy)
    assert device.set_up(flags) == f"{count} x H"


def test_batches_of_data_on_the_device_need_no_host_ops():
    """For an op without a GPU kernel, TensorFlow would copy all images to the host in each step."""
    images = tf.Variable(np.zeros([5, 12, 12, 3], np.uint8))
    changes = [functools.partial(augment.random_crop, size=8), *augment.BY_NAME.values()]
    for each in ([], changes):
        fetch = resident.make_fetch(images, tf.Variable(images[..., 0]), seed=0, changes=each)
        assert not ops_on_host(fetch.get_concrete_function())


@pytest.mark.parametrize(
    "gpus, xla, deterministic, expected",
    [
        ([], False, None, True),
        ([], True, None, False),
        ([], False, False, False),
        (["GPU"], False, None, False),
        (["GPU"], False, True, True),
    ],
)
def test_when_ops_are_deterministic(gpus, xla, deterministic, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "H"})
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(True))
    monkeypatch.setattr(device.config, "disable_op_determinism", lambda: calls.append(False))
    device.set_up(SimpleNamespace(deterministic=deterministic, xla=xla, strategy="single"))
    assert calls == [expected]
