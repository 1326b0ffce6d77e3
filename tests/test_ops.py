"""The ops against Keras' layers, and against values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from core import ops

LEAKY = keras.layers.LeakyReLU(negative_slope=0.2)


def random(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9)])
def test_convolutions_equal_keras_at_any_size(size, stride):
    x = random(2, *size, 3)
    kernel, bias = random(3, 3, 3, 4, seed=1), random(4, seed=2)
    layer = keras.layers.Conv2D(4, 3, strides=stride, padding="same")
    layer.build(x.shape)
    layer.set_weights([kernel, bias])
    np.testing.assert_allclose(ops.conv2d(x, kernel, bias, stride=stride), layer(x), atol=1e-5)
    if stride == 1:
        layer.set_weights([kernel, tf.zeros(4)])
        np.testing.assert_allclose(ops.conv2d_down(x, kernel), LEAKY(layer(x)), atol=1e-5)


@pytest.mark.parametrize("side, stride", [(3, 1), (3, 2), (2, 2)])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_transposed_convolutions_equal_keras_at_any_size(side, stride, size):
    x = random(2, *size, 3)
    kernel, bias = random(side, side, 4, 3, seed=1), random(4, seed=2)
    layer = keras.layers.Conv2DTranspose(4, side, strides=stride, padding="same")
    layer.build(x.shape)
    layer.set_weights([kernel, bias])
    ours = ops.conv2d_transpose(x, kernel, bias, stride=stride)
    np.testing.assert_allclose(ours, layer(x), atol=1e-5)
    if stride == 1:
        layer.set_weights([kernel, tf.zeros(4)])
        np.testing.assert_allclose(ops.conv2d_up(x, kernel), LEAKY(layer(x)), atol=1e-5)


def test_maxpool_down_drops_the_odd_row_and_column():
    x = tf.reshape(tf.range(15.0), [1, 3, 5, 1])
    np.testing.assert_array_equal(ops.maxpool_down(x)[0, ..., 0], [[6, 8]])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_maxpool_up_repeats_each_pixel_and_sums_its_gradients(size):
    x = random(2, *size, 3)
    expected = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(ops.maxpool_up(x), expected)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(ops.maxpool_up(x) * expected)
    np.testing.assert_allclose(tape.gradient(y, x), 4 * x, rtol=1e-6)


def test_shapes_are_derived_when_nothing_but_the_channels_is_known():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def network(x):
        skip = ops.conv2d_down(x, random(3, 3, 3, 4))
        x = ops.maxpool_up(ops.maxpool_down(skip))
        x = ops.conv2d_transpose(ops.maxpool_down(x), random(2, 2, 3, 4), random(3), stride=2)
        x = ops.conv2d(tf.concat([x, skip], axis=-1), random(3, 3, 7, 4), random(4))
        x = ops.conv2d_transpose(ops.maxpool_down(x), random(3, 3, 4, 4), stride=2)
        return ops.conv2d_up(x, random(3, 3, 5, 4))

    assert network(random(2, 6, 10, 3)).shape == (2, 6, 10, 5)
    assert network(random(1, 8, 2, 3)).shape == (1, 8, 2, 5)


def test_dropout_zeroes_a_share_scales_the_rest_and_depends_on_the_seed():
    x = tf.ones([1, 100, 100, 3])
    first, again, other_layer, other_step = (
        ops.dropout(x, 0.3, seed, layer).numpy()
        for seed, layer in (([7, 1], 0), ([7, 1], 0), ([7, 1], 1), ([7, 2], 0))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other_layer).any() and (first != other_step).any()
    zero = first == 0
    assert zero.mean() == pytest.approx(0.3, abs=0.01)
    assert (zero[..., 0] & zero[..., 1]).mean() == pytest.approx(
        0.09, abs=0.01
    )  # channels are dropped independently
    np.testing.assert_allclose(first[~zero], 1 / 0.7, rtol=1e-4)
    assert ops.dropout(x, 0.3, None, 0) is x


def test_batch_norm_equals_keras_in_training_and_inference():
    layer = keras.layers.BatchNormalization()
    layer.build((None, 5, 6, 4))
    layer.set_weights([random(4), random(4, seed=1), random(4, seed=2), tf.exp(random(4, seed=3))])
    gamma, beta, mean, variance = (tf.Variable(value) for value in layer.get_weights())
    for step in range(3):
        x = 3 * random(2, 5, 6, 4, seed=step) + 1
        with tf.GradientTape() as ours, tf.GradientTape() as theirs:
            ours.watch(x)
            theirs.watch(x)
            y = ops.batch_norm(x, gamma, beta, mean, variance, training=True)
            reference = layer(x, training=True)
            loss, reference_loss = tf.reduce_sum(y**3), tf.reduce_sum(reference**3)
        np.testing.assert_allclose(y, reference, atol=1e-5)
        np.testing.assert_allclose(ours.gradient(loss, x), theirs.gradient(reference_loss, x), atol=1e-4)
    np.testing.assert_allclose(mean, layer.moving_mean, atol=1e-6)
    np.testing.assert_allclose(variance, layer.moving_variance, atol=1e-5)
    y = ops.batch_norm(x, gamma, beta, mean, variance, training=False)
    np.testing.assert_allclose(y, layer(x, training=False), atol=1e-5)
