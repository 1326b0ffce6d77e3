"""FLOPs against NumPy and hand counts, and the baselines' networks against this project's."""

import inspect
import math
import os
import sys
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from core import lowering, weights
from core.runtime import cli
from experiments import article
from experiments.benchmark import comparison, flops, keras_baselines

ARTICLES = {  # name of the experiment -> number of parameters of the article's network
    "cityscape_road": 1_961_152,
    "oxford_pets": 34_513_475,
    "oxford_pets_mobilenet": 6_504_227,
    "cityscapes_labels": 31_061_282,
    "dubai_aerial": 1_421_830,
}


def numpy_products(x, kernel, stride):
    """Return the products that a SAME convolution sums over I, h and w: [B, H / s, W / s, I, h, w, O].

    x: [B, H, W, I]. kernel: [h, w, I, O]. s is the stride; H / s and W / s are rounded up. Products with
    padding are included.
    """
    pads = []
    for length, window in zip(x.shape[1:3], kernel.shape):
        missing = max((math.ceil(length / stride) - 1) * stride + window - length, 0)
        pads.append((missing // 2, missing - missing // 2))
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return windows[:, ::stride, ::stride, ..., None] * kernel.transpose(2, 0, 1, 3)


@pytest.mark.parametrize("side, stride", [(3, 1), (3, 2), (2, 2)])
def test_multiply_adds_equal_the_number_of_products_in_numpy(side, stride):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=size).astype(np.float32) for size in ([2, 7, 6, 3], [side, side, 3, 4]))
    products = numpy_products(x, kernel, stride)
    convolve = tf.function(lambda x: tf.nn.conv2d(x, kernel, stride, "SAME"))
    np.testing.assert_allclose(convolve(x), products.sum((3, 4, 5)), atol=1e-5)
    assert flops.gflop(convolve, tf.TensorSpec(x.shape)) == 2e-9 * products.size
    y = tf.TensorSpec(products.shape[:3] + (4,))
    transposed = tf.function(lambda y: tf.nn.conv2d_transpose(y, kernel, x.shape, stride))
    assert flops.gflop(transposed, y) == 2e-9 * products.size
    strides = [1, stride, stride, 1]
    depthwise = tf.function(lambda x: tf.nn.depthwise_conv2d(x, kernel[..., :1], strides, "SAME"))
    assert flops.gflop(depthwise, tf.TensorSpec(x.shape)) == 2e-9 * products.size / 4
    matrices = tf.function(lambda a: tf.matmul(a, tf.ones([2, 7, 5]), transpose_a=True)[0] @ tf.ones([5, 2]))
    assert flops.gflop(matrices, tf.TensorSpec([2, 7, 6])) == 2e-9 * (2 * 6 * 7 * 5 + 6 * 5 * 2)
    einsum = tf.function(lambda a: tf.einsum("...wi,io->...ow", a, tf.ones([6, 4])))
    assert flops.gflop(einsum, tf.TensorSpec([2, 3, 7, 6])) == 2e-9 * (2 * 3 * 7 * 6 * 4)


def test_flops_include_gradients_and_called_functions():
    """A gradient with respect to a kernel or an input has as many FLOPs as the forward convolution."""
    first, last = tf.Variable(tf.ones([3, 3, 3, 4])), tf.Variable(tf.ones([2, 2, 5, 4]))
    rest = tf.function(lambda x: tf.nn.conv2d_transpose(x, last, [2, 8, 6, 5], 2))

    def forward(images):
        return rest(tf.nn.conv2d(images, first, 2, "SAME"))

    @tf.function
    def train(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(images) ** 2)
        return tape.gradient(loss, [first, last])

    images, counts = tf.TensorSpec([2, 8, 6, 3]), 2 * 4 * 3 * np.array([4 * 27, 4 * 5 * 4])
    # the loss does not depend on the gradient with respect to the images
    assert flops.gflop(train, images) == pytest.approx(2e-9 * (3 * counts.sum() - counts[0]))
    twice = tf.function(lambda images: forward(images) + forward(images))
    assert flops.gflop(twice, images) == pytest.approx(4e-9 * counts.sum())


def network_of(name):
    """Return an experiment, the weights of its network, and a dict of settings that select its baselines.

    name: name of the experiment. The settings are network, filters and channels of `comparison._settings`.
    """
    module = article(name)
    experiment = module.experiment(cli.parse(module.define_flags))
    network = inspect.getmodule(experiment.forward)
    return (
        experiment,
        experiment.init_weights(seed=0),
        {
            "network": network.__name__.split(".")[-1],
            "filters": network.FILTERS,
            "channels": 1 if len(experiment.classes) == 2 else len(experiment.classes),
        },
    )


def counted_by_hand(weights, pixels):
    """Return the number of multiply-adds of a U-Net's forward pass, computed from the shapes of the kernels.

    Each kernel counts its number of elements, times the number of pixels at its level. pixels: the number of
    pixels of the batch of images.
    """
    total = 0
    for name, kernel in weights.items():
        if len(kernel.shape) == 4:
            level = int(name[name.index("/") - 1]) if name.startswith(("down", "up")) else 0
            # a transposed convolution of stride 2 is computed at the smaller size
            level += "transpose" in name
            total += math.prod(kernel.shape) * pixels / 4**level
    return total


def deviations(variables):
    """Return a sorted list of (shape, standard deviation) of all kernels with at least 2000 values."""
    kernels = (each.numpy() for each in variables if len(each.shape) == 4)
    return sorted((each.shape, each.std()) for each in kernels if each.size >= 2000)


@pytest.mark.parametrize("name", ARTICLES)
def test_flops_shapes_and_initial_kernels_of_plain_networks_agree_with_keras(name):
    experiment, ours, settings = network_of(name)
    model = keras_baselines.NETWORKS[settings["network"]](settings["filters"], settings["channels"])
    trained = [variable for variable in ours.values() if variable.trainable]
    shapes = sorted(tuple(variable.shape) for variable in trained)
    assert shapes == sorted(tuple(variable.shape) for variable in model.trainable_weights)
    assert model.count_params() == weights.count(ours) == ARTICLES[name]
    kernels, keras_kernels = deviations(trained), deviations(model.trainable_weights)
    assert [shape for shape, _ in kernels] == [shape for shape, _ in keras_kernels]
    np.testing.assert_allclose(*([each for _, each in side] for side in (kernels, keras_kernels)), rtol=0.1)
    images = tf.TensorSpec([2, 32, 64, 3])

    def training_gflop(forward, variables):
        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(forward(images))
            return tape.gradient(loss, variables)

        return flops.gflop(gradients, images)

    with lowering.disabled():
        predict = tf.function(lambda images: experiment.forward(ours, images))
        if name != "oxford_pets_mobilenet":  # the encoder's variables have no levels in their names
            by_hand = 2e-9 * counted_by_hand(ours, pixels=2 * 32 * 64)
            assert flops.gflop(predict, images) == pytest.approx(by_hand)
        if name not in ("cityscape_road", "dubai_aerial"):
            return  # the gradients of the other networks contain no other counted types of ops
        gflop = training_gflop(lambda images: experiment.forward(ours, images, training=True), trained)
    theirs = training_gflop(lambda images: model(images, training=True), model.trainable_variables)
    assert gflop == pytest.approx(theirs, rel=1e-12) and gflop > 0


@pytest.mark.parametrize("mode, precision", [("train", "bfloat16"), ("infer", "float32")])
def test_a_keras_measurement_reports_all_metrics(mode, precision):
    network = {"network": "labels_unet", "filters": [4], "channels": 5, "size": [16, 32]}
    spec = types.SimpleNamespace(**network, mode=mode, precision=precision, batch_size=2, seconds=0)
    before, begun = keras.config.dtype_policy(), time.time()
    try:
        metrics = keras_baselines.measure(spec)
    finally:
        keras.config.set_dtype_policy(before)
    assert metrics["images_per_second"] == pytest.approx(2 / metrics["step_seconds"])
    assert begun < metrics["first_step_at"] < time.time()
    trained, total = metrics["parameters"]
    assert total - trained == 2 * 2 * 4  # moving mean and variance of two batch normalisations


@pytest.mark.parametrize("peer, mode", [("torch", "train"), ("openvino", "infer")])
@pytest.mark.parametrize("name", ARTICLES)
def test_torch_and_openvino_networks_have_the_same_number_of_parameters(name, peer, mode):
    """Skipped if the Python $TORCH_PYTHON (default: sys.executable) cannot import the peer's packages."""
    interpreter = os.environ.get("TORCH_PYTHON", sys.executable)
    if not comparison.can_import(interpreter, comparison.PEERS[peer]):
        pytest.skip(f"{interpreter} has no {peer}; TORCH_PYTHON may name a Python that has it")
    _, ours, settings = network_of(name)
    settings |= {"size": [32, 64], "mode": mode, "precision": "float32", "batch_size": 1, "seconds": 0}
    metrics = comparison.measure_in_process(peer, settings, interpreter)
    trained = {name: variable for name, variable in ours.items() if variable.trainable}
    assert metrics["parameters"] == [weights.count(trained), weights.count(ours)]
    assert metrics["first_step_seconds"] > metrics["step_seconds"] > 0
