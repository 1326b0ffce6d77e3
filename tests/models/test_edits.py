"""An edit of an op changes every network that uses it, equally in training, prediction and export."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from small_networks import small

from core import lowering, ops
from core.lowering import winograd
from core.models import dubai_unet, labels_unet, mobilenet_unet, pets_unet, road_unet

NETWORKS = {
    "road": (
        small(road_unet),
        ["conv2d", "conv2d_transpose", "conv2d_down", "conv2d_up", "maxpool_down", "maxpool_up"],
    ),
    "pets": (small(pets_unet, classes=3), ["conv2d", "conv2d_transpose", "maxpool_down", "dropout"]),
    "labels": (small(labels_unet, classes=3), ["conv2d", "conv2d_transpose", "maxpool_down", "batch_norm"]),
    "dubai": (small(dubai_unet, classes=3), ["conv2d", "conv2d_transpose", "maxpool_down", "dropout"]),
    "mobilenet": (
        {
            "init_weights": functools.partial(mobilenet_unet.init_weights, classes=3),
            "forward": mobilenet_unet.forward,
        },
        ["conv2d", "conv2d_transpose", "depthwise_conv2d", "batch_norm"],
    ),
}
IMAGES = tf.random.stateless_uniform([1, 32, 32, 3], [1, 2], 0, 255)
EDITS = [(network, op) for network, (_, names) in NETWORKS.items() for op in names]


def outputs(weights, forward, call):
    """Return a list of three logits: of a training pass, of a prediction, and of an exported model.

    Exports contain no lowering. The logits of the exported model are therefore computed inside of
    `lowering.disabled`. call: takes a function and returns function(IMAGES), computed eagerly or in a graph.
    """
    for name, value in weights.items():
        if name.endswith("/mean"):  # because a training pass changes the moving averages
            value.assign(tf.zeros_like(value))
        elif name.endswith(("/variance", "/gamma")):  # a gain of 1.5 / sqrt(0.25) keeps the signal large
            value.assign(tf.fill(value.shape, 0.25 if name.endswith("variance") else 1.5))
    training = call(lambda x: forward(weights, x, training=True, seed=[0, 1]))
    with lowering.prediction():
        prediction = call(lambda x: forward(weights, x))
    with lowering.disabled():
        return [training, prediction, call(lambda x: forward(weights, x))]


def traced(function):
    return tf.function(function, autograph=False)(IMAGES).numpy()


@functools.cache
def unedited(network):
    """Return (weights, `outputs` in graphs) of a network without an edit. network: a key of NETWORKS."""
    fields, _ = NETWORKS[network]
    weights = fields["init_weights"](seed=0)
    return weights, outputs(weights, fields["forward"], traced)


@pytest.mark.parametrize("network, op", EDITS)
def test_an_edited_op_changes_the_network_and_graphs_equal_eager_code(
    network, op, small_articles, monkeypatch
):
    """The edited op returns y + 0.1 * sin(3 * y) instead of y.

    The test lowers MIN_CHANNEL_PRODUCT, so that Winograd's algorithm can run in these small networks.
    """
    monkeypatch.setattr(winograd, "MIN_CHANNEL_PRODUCT", 64)
    weights, before = unedited(network)
    forward = NETWORKS[network][0]["forward"]
    original = getattr(ops, op)

    def edited(*args, **options):
        y = original(*args, **options)
        return y + 0.1 * tf.sin(3 * y)

    monkeypatch.setattr(ops, op, edited)
    after = outputs(weights, forward, traced)
    eager = outputs(weights, forward, lambda function: function(IMAGES).numpy())
    for mode, old, new, expected in zip(("training", "prediction", "export"), before, after, eager):
        scale = np.abs(old).max()
        assert np.abs(new - old).max() > 1e-3 * scale, mode
        np.testing.assert_allclose(new, expected, atol=2e-5 * np.abs(expected).max(), err_msg=mode)
