"""Initial values have the range and deviation of their distribution and depend only on (seed, name)."""

import keras
import numpy as np
import pytest

from core import weights

SHAPE = (3, 3, 20, 40)


def test_glorot_uniform_has_the_right_range_and_deviation():
    limit = np.sqrt(6 / (9 * (20 + 40)))
    value = weights.glorot_uniform("conv", SHAPE, seed=0).numpy()
    assert np.abs(value).max() <= limit
    assert value.max() > 0.99 * limit and value.min() < -0.99 * limit
    assert value.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_he_normal_has_the_deviation_and_truncation_of_keras():
    value = weights.he_normal("conv", SHAPE, seed=0).numpy()
    reference = keras.initializers.HeNormal(seed=0)(SHAPE).numpy()
    assert value.std() == pytest.approx(np.sqrt(2 / 180), rel=0.02)
    assert value.std() == pytest.approx(reference.std(), rel=0.02)
    assert np.abs(value).max() == pytest.approx(np.abs(reference).max(), rel=0.02)


def test_initial_values_depend_only_on_seed_and_name():
    def value(name, seed):
        return weights.glorot_uniform(name, SHAPE, seed=seed).numpy()

    np.testing.assert_array_equal(value("a", 1), value("a", 1))
    assert not np.array_equal(value("a", 1), value("b", 1))
    assert not np.array_equal(value("a", 1), value("a", 2))


def test_count_is_the_number_of_scalars():
    variables = weights.batch_norm("norm", 5) | {"bias": weights.zeros("bias", 3)}
    assert weights.count(variables) == 23
    assert [variable.trainable for variable in variables.values()] == [True, True, False, False, True]
