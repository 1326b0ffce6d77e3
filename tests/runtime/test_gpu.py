"""As far as a CPU can tell: what is meant for a GPU has a kernel there.

An op without one would run on the host, and its tensors go there and back, without a word.
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from core.data import augment, resident
from core.inference.evaluate import make_predict
from core.runtime import cli, device
from core.training import averaging, step
from experiments import article

PRECISIONS = {
    "cityscape_road": tf.float16,  # with loss scaling
    "oxford_pets": tf.bfloat16,
    "oxford_pets_mobilenet": tf.bfloat16,
    "cityscapes_labels": tf.bfloat16,
    "dubai_aerial": tf.bfloat16,
}


def on_gpu(node):
    return any(
        kernel.device_type in ("GPU", "DEFAULT")
        and all(node.attr[each.name].type in each.allowed_values.list.type for each in kernel.constraint)
        for kernel in kernels_of(node.op)
    )


@functools.cache  # TensorFlow searches all of its kernels, a millisecond an op
def kernels_of(op):
    return kernels.get_registered_kernels_for_op(op).kernel


def on_host(function):
    """The ops of a concrete function that have no kernel for GPUs, with their types."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    if not any(on_gpu(node) for node in nodes):
        pytest.skip("this TensorFlow has no kernels for GPUs")
    nodes = [node for node in nodes if not (node.op == "Const" and node.attr["dtype"].type == tf.string)]
    return {(node.op, *(each.type for each in node.attr.values())) for node in nodes if not on_gpu(node)}


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_step_of_training_and_a_prediction(name):
    script, dtype = article(name), PRECISIONS[name]
    scratch = ["--encoder_weights=none", "--train_encoder"] if name == "oxford_pets_mobilenet" else []
    experiment = script.experiment(cli.parse(script.define_flags, scratch))
    weights = experiment.init_weights(seed=0)
    slots, averages = step.init_slots(weights, dtype), averaging.init_averages(weights)
    recipe = step.Recipe(
        1e-3, clip_norm=1, weight_decay=0.1, schedule="cosine", warmup_steps=2, dice=1, ema_decay=0.9
    )
    train_step = step.make_train_step(experiment, weights, slots, averages, dtype, recipe)
    assert not on_host(train_step.get_concrete_function())
    predict = make_predict(experiment, weights, dtype)
    assert not on_host(predict.get_concrete_function(tf.TensorSpec([None, None, None, 3], tf.uint8)))


@pytest.mark.parametrize("strategy, count", [("single", 1), ("mirrored", 8)])
def test_one_gpu_of_eight_is_called_one(monkeypatch, strategy, count):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: 8 * [kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "H"})
    flags = SimpleNamespace(deterministic=False, xla=False, strategy=strategy)
    assert device.set_up(flags) == f"{count} x H"


def test_data_on_the_device():
    """All images would go to the host at each step."""
    images = tf.Variable(np.zeros([5, 12, 12, 3], np.uint8))
    changes = [functools.partial(augment.random_crop, size=8), *augment.BY_NAME.values()]
    for each in ([], changes):
        fetch = resident.make_fetch(images, tf.Variable(images[..., 0]), seed=0, changes=each)
        assert not on_host(fetch.get_concrete_function())
