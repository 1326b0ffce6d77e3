"""Adam, learning rate, loss scaling and averaged weights, against Keras, NumPy and TensorFlow's fused op."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from core.lowering import fused_adam
from core.runs import checkpoint
from core.training import optimizer


@pytest.mark.parametrize("gradient_scale", [1, 1e-8])
def test_adams_formula_equals_the_fused_op_bit_for_bit(gradient_scale):
    numbers = np.random.default_rng(0).normal(size=[3, 40, 7]).astype(np.float32)
    numbers[1:] *= gradient_scale
    for step in (1.0, 2.0, 5000.0):
        weight, mean, gradient = numbers
        variables = [tf.Variable(value) for value in (weight, mean, np.square(gradient[::-1]))]
        rate = tf.constant(1e-3)
        expected = optimizer.adam(
            *(v.value() for v in variables), gradient, step=tf.constant(step), learning_rate=rate
        )
        constants = optimizer.BETA1, optimizer.BETA2, optimizer.EPSILON
        shared = fused_adam.arguments(tf.constant(step), rate, *constants)
        fused_adam.apply(*variables, gradient, shared)
        for variable, value in zip(variables, expected):
            np.testing.assert_array_equal(variable, value)


def test_an_edit_of_adams_formula_changes_the_step(monkeypatch):
    """The edits: plain gradient descent, swapped moments, only biases updated, and other values of BETA1."""
    unedited, adam = stepped(), optimizer.adam

    def wrapped(*args, **options):
        return adam(*args, **options)

    def without_square(weight, mean, square, gradient, *, step, learning_rate):
        return weight - learning_rate * gradient, mean, square

    def swapped(*args, **options):
        weight, mean, square = adam(*args, **options)
        return weight, square, mean

    def biases_only(weight, mean, square, gradient, **options):
        if weight.shape.rank > 1:
            return weight, mean, square
        return adam(weight, mean, square, gradient, **options)

    monkeypatch.setattr(optimizer, "adam", wrapped)
    assert stepped() == unedited
    for edit in (without_square, swapped, biases_only):
        monkeypatch.setattr(optimizer, "adam", edit)
        assert stepped() != unedited, edit.__name__
    monkeypatch.setattr(optimizer, "adam", adam)
    for beta in (0.8, 0, tf.Variable(0.8)):
        monkeypatch.setattr(optimizer, "BETA1", beta)
        assert stepped() != unedited


def stepped():
    """Run one step of the optimizer in a graph; return a dict: name of each weight and slot -> its bytes."""
    weights = {"kernel": tf.Variable([[1.0, 2.0]]), "bias": tf.Variable([3.0])}
    gradients = {"kernel": tf.constant([[0.5, -2.0]]), "bias": tf.constant([0.1])}
    slots = optimizer.init_slots(weights, tf.float32)
    tf.function(lambda: optimizer.update(weights, slots, gradients, learning_rate=0.1), autograph=False)()
    return {name: variable.numpy().tobytes() for name, variable in (weights | slots).items()}


def test_weight_decay_applies_only_to_kernels():
    weights = {"kernel": tf.Variable([[1.0]]), "bias": tf.Variable([1.0])}
    still = {name: tf.zeros_like(weight) for name, weight in weights.items()}
    slots = optimizer.init_slots(weights, tf.float32)
    optimizer.update(weights, slots, still, learning_rate=0.1, weight_decay=0.5)
    assert float(weights["kernel"][0, 0]) == pytest.approx(0.95) and float(weights["bias"][0]) == 1


def test_the_learning_rate_follows_keras_cosine_with_warm_up():
    keras = tf.keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=90, warmup_target=0.01, warmup_steps=10
    )
    rate = functools.partial(optimizer.learning_rate, peak=0.01, shape="cosine", warmup_steps=10, steps=100)
    for step in (10, 11, 37, 55, 99):
        assert float(rate(tf.constant(step, tf.int64))) == pytest.approx(float(keras(step)), rel=1e-4)
    rates = [float(rate(tf.constant(step, tf.int64))) for step in range(12)]
    np.testing.assert_allclose(rates[:11], 0.01 * np.arange(1, 12) / 11, rtol=1e-6)
    constant = [
        float(optimizer.learning_rate(step, peak=0.5, shape="constant", warmup_steps=1, steps=9))
        for step in range(4)
    ]
    assert constant == [0.25, 0.5, 0.5, 0.5]


def test_averages_equal_a_hand_computed_exponential_moving_average():
    weights = {"kernel": tf.Variable([1.0, 2.0])}
    averages = optimizer.init_averages(weights)
    expected = np.array([1.0, 2.0])
    for step in range(1, 40):
        weights["kernel"].assign([step, -step])
        optimizer.update_averages(averages, weights, tf.constant(step, tf.int64), decay=0.5)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * np.array([step, -step])
    np.testing.assert_allclose(averages["average/kernel"], expected, rtol=1e-5)
    variables = {**weights, "adam/step": 3, "scaling/factor": 2, **averages}
    assert checkpoint.prediction_variables(variables) == {"kernel": averages["average/kernel"]}
    assert checkpoint.prediction_variables({**weights, "adam/step": 3}) == weights


def test_float16_skips_a_step_that_overflows_and_adapts_its_scale():
    variables = {"kernel": tf.Variable([1.0, 2.0])}
    slots = optimizer.init_slots(variables, tf.float16)
    assert "scaling/factor" not in optimizer.init_slots(variables, tf.bfloat16)
    assert float(optimizer.scale_loss(tf.constant(2.0), slots)) == 2 * 2.0**15
    assert optimizer.scale_loss(3.0, {}) == 3.0

    def descend(gradients):
        variables["kernel"].assign_sub(gradients["kernel"])

    @tf.function
    def step(gradient):
        optimizer.update_unscaled(descend, {"kernel": gradient * slots["scaling/factor"]}, slots)

    def state():
        return float(slots["scaling/factor"]), int(slots["scaling/steps"])

    step([0.5, 0.25])
    assert state() == (2**15, 1)
    np.testing.assert_array_equal(variables["kernel"], [0.5, 1.75])
    for bad in (np.inf, np.nan):
        step([bad, 0.0])
    assert state() == (2**13, 0)
    np.testing.assert_array_equal(variables["kernel"], [0.5, 1.75])
    slots["scaling/steps"].assign(1998)
    step([0.0, 0.0])
    assert state() == (2**13, 1999)
    step([0.0, 0.0])
    assert state() == (2**14, 0)
