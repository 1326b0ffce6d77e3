"""Each U-Net against an independent Keras build with the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_networks import small

from core import ops
from core.models import dubai_unet, labels_unet, pets_unet, road_unet
from experiments.benchmark import keras_baselines

SMALL = (4, 6, 8)
ROAD, PETS, LABELS, DUBAI = (
    (road_unet, {}, 1),
    (pets_unet, {"classes": 3}, 3),
    (labels_unet, {"classes": 5}, 5),
    (dubai_unet, {"classes": 6}, 6),
)


def both(ours, theirs):
    """Return (variables, forward function, Keras model) of one network; the Keras model has the same weights.

    ours: ROAD, PETS, LABELS or DUBAI. theirs: the network's function in `keras_baselines`. The Keras model
    computes in float64. In float32, Keras computes the variance as a difference of two means, which is less
    exact than our variance, and batch normalisation amplifies the error.
    """
    module, options, channels = ours
    network = small(module, filters=SMALL, **options)
    variables = network["init_weights"](seed=1)
    for index, (name, variable) in enumerate(variables.items()):
        noise = tf.random.stateless_uniform(variable.shape, [index, 0], -0.2, 0.2)
        kernel = len(variable.shape) == 4  # biases of at least 0, so that few ReLUs output only zeros
        variable.assign(variable + noise if kernel else tf.abs(variable + 5 * noise))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    reference = theirs(SMALL, channels)
    keras.config.set_dtype_policy(before)
    reference.set_weights([variable.numpy() for variable in variables.values()])
    return variables, network["forward"], reference


@pytest.mark.parametrize(
    "ours, theirs, atol",
    [
        (ROAD, keras_baselines.road_unet, 1e-5),
        (PETS, keras_baselines.pets_unet, 1e-5),
        (LABELS, keras_baselines.labels_unet, 1e-4),
        (DUBAI, keras_baselines.dubai_unet, 1e-5),
    ],
)
def test_outputs_and_gradients_equal_keras(ours, theirs, atol):
    variables, forward, reference = both(ours, theirs)
    images = tf.random.stateless_uniform([2, 16, 24, 3], [3, 4], 0, 255)
    target = tf.random.stateless_normal([2, 16, 24, reference.output_shape[-1]], [5, 6])
    # networks with dropout are compared without training, because Keras draws other random numbers
    training = theirs is keras_baselines.labels_unet
    with tf.GradientTape() as tape, tf.GradientTape() as reference_tape:
        logits = forward(variables, images, training=training)
        expected = reference(tf.cast(images, tf.float64), training=training)
        loss = tf.reduce_mean((logits - target) ** 2)
        reference_loss = tf.reduce_mean((expected - tf.cast(target, tf.float64)) ** 2)
    np.testing.assert_allclose(logits, expected, atol=atol)
    trained = [variable for variable in variables.values() if variable.trainable]
    gradients = tape.gradient(loss, trained)
    expected_gradients = reference_tape.gradient(reference_loss, reference.trainable_weights)
    for variable, gradient, expected in zip(trained, gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=atol, err_msg=variable.name)
    for variable, expected in zip(variables.values(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(variable, expected, atol=atol, err_msg=variable.name)
    if training:
        still = reference(tf.cast(images, tf.float64), training=False)
        np.testing.assert_allclose(forward(variables, images), still, atol=atol)


@pytest.mark.parametrize("module, options, channels", [ROAD, PETS, LABELS, DUBAI])
def test_image_sides_are_multiples_of_the_networks_stride_in_bfloat16(module, options, channels):
    network = small(module, filters=SMALL, **options)
    variables = network["init_weights"](seed=0)
    for height, width in ((4, 4), (12, 20)):
        images = tf.zeros([1, height, width, 3], tf.bfloat16)
        logits = network["forward"](variables, images, training=True, seed=[0, 0])
        assert logits.shape == (1, height, width, channels) and logits.dtype == tf.bfloat16


@pytest.mark.parametrize(
    "ours, theirs", [(PETS, keras_baselines.pets_unet), (DUBAI, keras_baselines.dubai_unet)]
)
def test_dropout_is_at_the_same_places_as_in_keras(ours, theirs, monkeypatch):
    """The test replaces each dropout in both networks by a multiplication by 1 + rate."""
    monkeypatch.setattr(ops, "dropout", lambda x, rate, seed, layer: (1 + rate) * x)
    monkeypatch.setattr(layers, "Dropout", lambda rate: layers.Rescaling(1 + rate))
    variables, forward, reference = both(ours, theirs)
    images = tf.random.stateless_uniform([1, 16, 24, 3], [3, 4], 0, 255)
    logits = forward(variables, images, training=True, seed=[0, 0])
    np.testing.assert_allclose(logits, reference(tf.cast(images, tf.float64)), atol=1e-5)


def test_road_logits_are_linear_and_have_no_bias():
    network = small(road_unet, filters=SMALL)
    variables, forward = network["init_weights"](seed=0), network["forward"]
    assert not forward(variables, tf.zeros([1, 8, 8, 3])).numpy().any()
    noise = tf.random.stateless_uniform([1, 8, 8, 3], [0, 0], 0, 255)
    logits = forward(variables, noise).numpy()
    assert logits.min() < 0 < logits.max()


@pytest.mark.parametrize("module, classes, dropouts", [(pets_unet, 3, 4), (dubai_unet, 6, 5)])
def test_dropout_acts_only_in_training_and_depends_on_the_seed(module, classes, dropouts, monkeypatch):
    network = small(module, filters=SMALL, classes=classes)
    variables, forward = network["init_weights"](seed=0), network["forward"]
    images = tf.random.stateless_uniform([1, 8, 8, 3], [0, 0], 0, 255)
    first, again, other, still, unseeded = (
        forward(variables, images, training=training, seed=seed).numpy()
        for training, seed in ((True, [0, 1]), (True, [0, 1]), (True, [0, 2]), (False, [0, 1]), (True, None))
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(still, unseeded)
    assert not np.array_equal(first, other) and not np.array_equal(first, still)
    drawn = []
    monkeypatch.setattr(ops, "dropout", lambda x, rate, seed, layer: drawn.append(layer) or x)
    forward(variables, images, training=True, seed=[0, 1])
    assert len(drawn) == len(set(drawn)) == dropouts  # each layer has its own number
