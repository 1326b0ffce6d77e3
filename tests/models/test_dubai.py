"""The network of the aerial article against Keras, and its soft metrics against NumPy."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from core import losses, ops
from core.models import dubai_unet
from experiments import dubai_aerial as article
from experiments.benchmark import keras_baselines

# --- network


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_equal_keras(training, monkeypatch):
    """In training mode, the test replaces each dropout in both networks by a multiplication by 1 - rate."""
    monkeypatch.setattr(ops, "dropout", lambda x, rate, seed, layer: x if seed is None else x * (1 - rate))
    if training:
        monkeypatch.setattr(layers, "Dropout", lambda rate: layers.Rescaling(1 - rate))
    variables = dubai_unet.init_weights(seed=1, classes=6)
    for index, (name, variable) in enumerate(variables.items()):
        if name.endswith("bias"):
            variable.assign(tf.random.stateless_uniform(variable.shape, [index, 0], -0.2, 0.2))
    reference = keras_baselines.dubai_unet(dubai_unet.FILTERS, 6)
    reference.set_weights([variable.numpy() for variable in variables.values()])
    images = tf.random.stateless_uniform([2, 32, 48, 3], [3, 4], 0, 255)
    masks = tf.random.stateless_uniform([2, 32, 48], [5, 6], 0, 6, tf.int32)
    with tf.GradientTape() as tape, tf.GradientTape() as reference_tape:
        logits = dubai_unet.forward(variables, images, training=training, seed=[0, 0])
        expected = reference(images, training=False)
        loss = tf.reduce_mean(losses.categorical_cross_entropy(logits, masks))
        reference_loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(masks, tf.nn.softmax(expected))
        )
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert float(loss) == pytest.approx(float(reference_loss), abs=1e-4)
    gradients = tape.gradient(loss, list(variables.values()))
    expected_gradients = reference_tape.gradient(reference_loss, reference.trainable_weights)
    for name, gradient, expected in zip(variables, gradients, expected_gradients, strict=True):
        scale = np.abs(expected).max()  # relative, because some tensors have only gradients below 1e-4
        np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-4, err_msg=name)


def test_initial_values_have_the_deviation_and_range_of_keras_defaults():
    variables = dubai_unet.init_weights(seed=0, classes=6)
    he, glorot = variables["down4/conv2/kernel"].numpy(), variables["up3/transpose/kernel"].numpy()
    assert he.std() == pytest.approx(np.sqrt(2 / (9 * 160)), rel=0.02)
    assert np.abs(glorot).max() == pytest.approx(np.sqrt(6 / (4 * (160 + 128))), rel=0.01)
    assert not any(value.numpy().any() for name, value in variables.items() if name.endswith("bias"))


# --- soft metrics


def test_soft_metrics_follow_the_articles_formulas():
    rng = np.random.RandomState(0)
    logits, masks = rng.normal(size=(3, 4, 5, 6)).astype(np.float32), rng.randint(0, 6, (3, 4, 5))
    prediction = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    truth = np.eye(6)[masks]

    def index(t, p):
        return ((t * p).sum() + 1) / (t.sum() + p.sum() - (t * p).sum() + 1)

    for graph in (lambda function: function, functools.partial(tf.function, autograph=False)):
        jaccard = graph(article.soft_jaccard)(logits, masks)
        np.testing.assert_allclose(jaccard, np.full(3, index(truth, prediction)), rtol=1e-5)
        each = [index(t, p) for t, p in zip(truth, prediction)]
        np.testing.assert_allclose(graph(article.soft_iou)(logits, masks), each, rtol=1e-5)


def test_soft_metrics_of_saturated_logits_equal_metrics_of_class_ids():
    masks = np.array([[[0, 1], [2, 3]], [[4, 5], [0, 0]]])
    wrong = np.array([[[0, 1], [2, 3]], [[4, 5], [1, 1]]])  # 6 of 8 pixels are correct
    logits = 100 * np.eye(6, dtype=np.float32)[wrong]
    np.testing.assert_allclose(article.soft_jaccard(logits, masks), [7 / 11, 7 / 11], rtol=1e-6)
    np.testing.assert_allclose(article.soft_iou(logits, masks), [1, 3 / 7], rtol=1e-6)
