"""Fast convolutions against TensorFlow's own: numbers, gradients, rounding, and where they are used."""

import numpy as np
import pytest
import tensorflow as tf

from core import ops
from core.lowering import fast_convolution
from experiments.benchmark import flops


def random(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 1])


def with_gradients(convolution, x, kernel, upstream):
    """Output, gradient of x and gradient of the kernel, float32, of a graph that knows the channels alone."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, x.shape[-1]], x.dtype)])
    def graph(x):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolution(x, kernel)
        return y, *tape.gradient(y, [x, kernel], tf.cast(upstream, x.dtype))

    return [tf.cast(each, tf.float32).numpy() for each in graph(x)]


def plain(x, kernel):
    return tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides=1, padding="SAME")


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (10, 3), (1, 9), (5, 1)])
@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 3e-6), (tf.bfloat16, 0.03)])
def test_half_of_the_products_make_the_same_convolution(size, dtype, tolerance):
    x, kernel, upstream = random(2, *size, 6), random(3, 3, 6, 4, seed=1), random(2, *size, 4, seed=2)
    fast = with_gradients(fast_convolution.conv2d, tf.cast(x, dtype), kernel, upstream)
    for mine, expected in zip(fast, with_gradients(plain, x, kernel, upstream)):
        np.testing.assert_allclose(mine, expected, atol=tolerance * np.abs(expected).max())


def test_rounding_in_bfloat16_is_what_the_docstring_says():
    x, kernel = tf.nn.relu(random(2, 32, 8, 256)), random(3, 3, 256, 64, seed=1)
    x = tf.cast(x, tf.bfloat16)
    exact = plain(tf.cast(x, tf.float32), kernel)
    off = [
        np.std(tf.cast(each(x, kernel), tf.float32) - exact) / np.std(exact)
        for each in (fast_convolution.conv2d, plain)
    ]
    np.testing.assert_allclose(off, [0.006, 0.0024], rtol=0.1)


def test_a_step_has_six_convolutions_of_a_row_six_back_and_eighteen_products_for_the_kernel():
    """Not another six in the gradient, for their shapes alone, where sizes are unknown."""
    kernel = random(3, 3, 4, 4)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 4])])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            loss = tf.reduce_sum(fast_convolution.conv2d(x, kernel))
        return loss, tape.gradient(loss, [x, kernel])

    needed = flops.needed(step.get_concrete_function().graph)
    kinds = [op.type for op in needed]
    assert (kinds.count("Conv2D"), kinds.count("Conv2DBackpropInput")) == (6, 6)
    assert sum(op.get_attr("transpose_a") for op in needed if op.type == "MatMul") == 18


@pytest.mark.parametrize(
    "inside, outside, side, stride, dtype, gpus, fast",
    [
        (128, 128, 3, 1, tf.float32, [], True),
        (128, 256, 3, 1, tf.bfloat16, [], True),
        (128, 127, 3, 1, tf.float32, [], False),
        (128, 128, 1, 1, tf.float32, [], False),
        (128, 128, 3, 2, tf.float32, [], False),
        (128, 128, 3, 1, tf.float16, [], False),
        (128, 128, 3, 1, tf.float32, ["a GPU"], False),
    ],
)
def test_wide_layers_are_fast_on_cpus(inside, outside, side, stride, dtype, gpus, fast, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    kernel = tf.Variable(random(side, side, inside, outside))
    x = tf.cast(random(1, 4, 4, inside), dtype)

    def kernels_of_a_graph():
        graph = tf.function(lambda x: ops.conv2d(x, kernel, stride=stride), autograph=False)
        needed = flops.needed(graph.get_concrete_function(x).graph)
        return [op.inputs[1].shape[:2] for op in needed if op.type == "Conv2D"]

    assert kernels_of_a_graph() == (6 * [[1, 3]] if fast else [[side, side]])
    with fast_convolution.plain():
        assert kernels_of_a_graph() == [[side, side]]


@pytest.mark.parametrize("gpus", [[], ["a GPU"]])
@pytest.mark.parametrize(
    "outside, dtype, ahead, products",
    [(15, tf.float32, 0, 1), (15, tf.bfloat16, 0, 1), (16, tf.float32, 1, 0), (16, tf.bfloat16, 1, 9)],
)
def test_transposed_ones_are_products_on_cpus(outside, dtype, ahead, products, gpus, monkeypatch):
    """With few outputs ahead, with many for the kernel's gradient, and that in bfloat16 alone."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    kernel = tf.ones([3, 3, outside, 2])

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = ops.conv2d_transpose(x, kernel, stride=2)
        return y, tape.gradient(y, kernel)

    def kinds():
        graph = tf.function(step, autograph=False).get_concrete_function(tf.ones([1, 4, 6, 2], dtype)).graph
        kinds = [op.type for op in flops.needed(graph)]
        return kinds.count("Conv2DBackpropInput"), kinds.count("MatMul")

    assert kinds() == ((1, 0) if gpus else (ahead, products))
    with fast_convolution.plain():
        assert kinds() == (1, 0)


def test_a_batch_of_none_keeps_its_shape():
    x, kernel = tf.zeros([0, 7, 5, 6]), random(3, 3, 6, 4)
    for mine in with_gradients(fast_convolution.conv2d, x, kernel, tf.zeros([0, 7, 5, 4])):
        assert mine.shape in [(0, 7, 5, 4), (0, 7, 5, 6), (3, 3, 6, 4)] and not mine.any()
