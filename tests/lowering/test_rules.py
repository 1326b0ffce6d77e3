"""Each lowering rule against TensorFlow's plain ops, and patterns that almost match."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager_context
from tensorflow.python.framework import test_util

from core import lowering, ops
from core.lowering import policy, winograd
from core.models import dubai_unet, road_unet
from core.weights import fixed


def random(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 1])


def traced(function, activations, kernels, dtype=tf.float32, context=contextlib.nullcontext, others=()):
    """Run a graph of `function` and its gradients; return ([output, *gradients], applied rules).

    The output and the gradients are float32 arrays. applied rules: a dict: name of a rule -> how often the
    rule was applied in the graph. function: (*activations, *kernels) -> [B, H, W, C]. dtype: the dtype of the
    activations. The graph knows the number of channels of each activation, but not its batch size, height and
    width. Kernels and biases are float32. context: a function that returns the context manager in which
    `function` is called. others: further lists of activations, with which the graph also runs. Their outputs
    and gradients follow those of `activations` in the returned list.
    """
    signature = [tf.TensorSpec([None, None, None, each.shape[-1]], dtype) for each in activations]

    @tf.function(autograph=False, input_signature=signature)
    def graph(*activations):
        given = [*activations, *kernels]
        with tf.GradientTape() as tape:
            tape.watch(given)
            with context():
                y = tf.cast(function(*given), tf.float32)
            loss = tf.reduce_mean((y - 0.3) ** 2)
        return y, tape.gradient(loss, given, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    before = lowering.applied()
    results = []
    for given in (activations, *others):
        y, gradients = graph(*(tf.cast(each, dtype) for each in given))
        results += [tf.cast(each, tf.float32).numpy() for each in (y, *gradients)]
    return results, dict(lowering.applied() - before)


def up_and_skip(x, skip, kernel):
    return ops.conv2d_up(tf.concat([ops.maxpool_up(x), skip], axis=-1), kernel)


def frozen_skip(x, skip, kernel):
    return ops.conv2d_transpose(tf.concat([x, tf.stop_gradient(skip)], axis=-1), kernel, stride=2)


def transpose_and_skip(x, skip, up_kernel, up_bias, kernel, bias):
    up = ops.conv2d_transpose(x, up_kernel, up_bias, stride=2)
    return ops.conv2d(tf.concat([up, skip], axis=-1), kernel, bias)


def conv_of_both(x, skip, kernel, bias):
    return ops.conv2d(tf.concat([x, skip], axis=-1), kernel, bias)


def transposed_2x2(x, kernel, bias):
    return ops.conv2d_transpose(x, kernel, bias, stride=2)


def normalised(op):
    def layer(x, kernel, gamma, beta, mean, deviation):
        return ops.batch_norm(op(x, kernel, stride=2), gamma, beta, mean, deviation**2, training=False)

    return layer


NORM = [random(4, seed=seed) for seed in (2, 3, 4, 5)]
OF_BOTH = conv_of_both, [random(3, 3, 9, 4, seed=2), random(4, seed=3)], 1
OF_BLOCKS = transposed_2x2, [random(2, 2, 5, 6, seed=2), random(5, seed=3)], 0
# rule -> (function, kernels and biases, scale). scale: the side of the skip connection divided by the side of
# the first activation; 0 if there is no skip connection
CASES = {
    "nearest_then_skip": (up_and_skip, [random(3, 3, 4, 9, seed=2)], 2),
    "frozen_part_apart": (frozen_skip, [random(3, 3, 17, 9, seed=2)], 1),
    "transpose_then_conv": (
        transpose_and_skip,
        [random(2, 2, 5, 6, seed=2), random(5, seed=3), random(3, 3, 8, 4, seed=4), random(4, seed=5)],
        2,
    ),
    "frozen_norm": (normalised(ops.conv2d), [random(3, 3, 6, 4, seed=1), *NORM], 0),
    "winograd": (ops.conv2d, [random(3, 3, 6, 4, seed=1)], 0),
    "transpose_kernel_gradient": (
        lambda x, kernel: ops.conv2d_transpose(x, kernel, stride=2),
        [random(3, 3, 16, 6, seed=1)],
        0,
    ),
    "conv2d_of_parts": OF_BOTH,
    "bias_before_sum": OF_BOTH,
    "leaky_relu": (up_and_skip, [random(3, 3, 4, 9, seed=2)], 2),
    "conv2d_of_blocks": OF_BLOCKS,
    "bias_before_depth_to_space": OF_BLOCKS,
}
AMX_RULES = ("conv2d_of_blocks", "bias_before_depth_to_space")
PREDICTION_RULES = ("conv2d_of_parts", "bias_before_sum", "leaky_relu", *AMX_RULES)
BFLOAT16_RULES = ("transpose_kernel_gradient", *AMX_RULES)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("rule", CASES)
def test_a_lowered_graph_has_the_outputs_and_gradients_of_the_plain_ops(rule, dtype, monkeypatch):
    """The graph runs at 7x5 and at 1x2 pixels.

    Errors are differences from the results of the plain ops in float32.

    In float32, an error is at most 1e-5 of the largest result. In bfloat16, an error is at most four times
    the largest error of the plain ops in bfloat16, plus 2 % of the largest result.
    """
    if rule in BFLOAT16_RULES and dtype == tf.float32:
        pytest.skip("this rule is for bfloat16")
    monkeypatch.setattr(winograd, "MIN_CHANNEL_PRODUCT", 1 if rule == "winograd" else 2**14)
    monkeypatch.setattr(policy, "_has_amx", lambda: rule in AMX_RULES)
    monkeypatch.setattr(ops, "LEAK", 0.5)  # an edited slope
    context = lowering.prediction if rule in PREDICTION_RULES else contextlib.nullcontext
    function, kernels, skip_scale = CASES[rule]
    large, small = ([random(2, height, width, 6)] for height, width in ((7, 5), (1, 2)))
    if skip_scale:
        large.append(random(2, skip_scale * 7, skip_scale * 5, 3, seed=7))
        small.append(random(2, skip_scale * 1, skip_scale * 2, 3, seed=7))
    found, rules = traced(function, large, kernels, dtype, context, others=[small])
    assert rules.get(rule) == 1
    with lowering.disabled():
        exact, no_rules = traced(function, large, kernels, others=[small])
        plain = exact
        if dtype != tf.float32:
            plain, _ = traced(function, large, kernels, dtype, others=[small])
    assert not no_rules
    for lowered, rounded, expected in zip(found, plain, exact, strict=True):
        scale = max(np.abs(expected).max(), 1e-3)
        off, allowed = np.abs(lowered - expected).max(), np.abs(rounded - expected).max()
        assert off <= (1e-5 * scale if dtype == tf.float32 else 4 * allowed + 0.02 * scale)


@pytest.mark.parametrize("rule", [rule for rule in CASES if rule not in PREDICTION_RULES])
def test_an_edit_of_a_kernel_after_its_cast_to_bfloat16_is_computed(rule, monkeypatch):
    """The edit multiplies the bfloat16 kernels by 3 before they are passed to `core.lowering`."""

    def edited(primitive):
        return lambda x, kernel, **options: primitive(x, 3 * kernel, **options)

    monkeypatch.setattr(policy, "_has_amx", lambda: False)
    monkeypatch.setattr(winograd, "MIN_CHANNEL_PRODUCT", 1 if rule == "winograd" else 2**14)
    for primitive in ("conv2d", "conv2d_transpose"):
        monkeypatch.setattr(lowering, primitive, edited(getattr(lowering, primitive)))
    function, kernels, skip_scale = CASES[rule]
    activations = [MAP, random(2, skip_scale * 4, skip_scale * 6, 3, seed=7)] if skip_scale else [MAP]
    found, rules = traced(function, activations, kernels, tf.bfloat16)
    assert not rules
    with lowering.disabled():
        plain, _ = traced(function, activations, kernels, tf.bfloat16)
    for lowered, expected in zip(found, plain, strict=True):
        np.testing.assert_array_equal(lowered, expected)


@pytest.mark.parametrize("size", [(7, 5), (8, 8)])
def test_winograd_computes_the_same_bits_for_known_and_unknown_image_sizes(size):
    x, kernel = random(2, *size, 6), random(3, 3, 6, 4, seed=1)

    def output_and_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = winograd.winograd_conv2d(x, kernel)
        return [y, *tape.gradient(y, [x, kernel])]

    shapes = [None, *size, 6], [None, None, None, 6]
    known, unknown = (
        tf.function(output_and_gradients, autograph=False, input_signature=[tf.TensorSpec(shape)])(x)
        for shape in shapes
    )
    for one, other in zip(known, unknown, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("after", [lambda x: unknown_rank(x), lambda x: tf.gather(x, [0, 0])])
def test_winograd_accepts_an_upstream_gradient_of_unknown_rank_or_of_indexed_slices(after):
    def function(x, kernel):
        return after(ops.conv2d(x, kernel))

    given = [random(1, 4, 6, 128)], [random(3, 3, 128, 128, seed=1)]
    found, rules = traced(function, *given)
    assert rules == {"winograd": 1}
    with lowering.disabled():
        exact, _ = traced(function, *given)
    for lowered, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(lowered, expected, atol=1e-5 * np.abs(expected).max())


def test_winograd_keeps_rows_next_to_a_bright_row_accurate_in_float32():
    """Row 11 of the input is multiplied by 100, which increases rounding errors in other rows of its windows.

    Winograd's algorithm computes output rows 8 to 11 from input rows 7 to 12, and output rows 12 to 15 from
    input rows 11 to 16. Of these output rows, 8, 9, 13, 14 and 15 do not depend on input row 11.
    """
    x, kernel = random(1, 24, 16, 64), random(3, 3, 64, 64, seed=1)
    x = np.where(np.arange(24)[:, None, None] == 11, 100 * x, x).astype(np.float32)
    found = winograd.winograd_conv2d(tf.constant(x), tf.constant(kernel)).numpy()
    exact = tf.nn.conv2d(tf.cast(x, tf.float64), tf.cast(kernel, tf.float64), 1, "SAME").numpy()
    beside = np.abs(np.arange(24) - 11) > 1  # rows whose exact values do not depend on the bright row
    error, deviation = np.abs(found - exact)[:, beside], exact[:, beside].std()
    assert error.max() < 5e-4 * deviation


def test_frozen_normalisation_is_merged_into_a_depthwise_convolution():
    given = [random(2, 5, 7, 4)], [random(3, 3, 4, 1, seed=1), *NORM]
    found, rules = traced(normalised(ops.depthwise_conv2d), *given)
    assert rules == {"frozen_norm": 1}
    with lowering.disabled():
        exact, _ = traced(normalised(ops.depthwise_conv2d), *given)
    for lowered, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(lowered, expected, atol=1e-5 * np.abs(expected).max())


def test_frozen_normalisation_keeps_different_strides_of_height_and_width():
    def strided(x, kernel, stride):
        return ops.conv2d(x, kernel, stride=(2, 1))

    given = [random(2, 5, 7, 6)], [random(3, 3, 6, 4, seed=1), *NORM]
    found, rules = traced(normalised(strided), *given)
    assert rules == {"frozen_norm": 1}
    with lowering.disabled():
        exact, _ = traced(normalised(strided), *given)
    for lowered, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(lowered, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_transpose_then_conv_applies_in_prediction_in_half_precision(dtype, monkeypatch):
    monkeypatch.setattr(policy, "_has_amx", lambda: False)
    function, kernels, _ = CASES["transpose_then_conv"]
    (found, *_), rules = traced(function, [MAP, SKIP], kernels, dtype, lowering.prediction)
    assert rules["transpose_then_conv"] == 1
    with lowering.disabled():
        (expected, *_), _ = traced(function, [MAP, SKIP], kernels)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_a_custom_gradient_around_a_rewritten_convolution_is_used():
    @tf.custom_gradient
    def conv(x, kernel):
        return ops.conv2d(x, kernel), lambda upstream: (7 * tf.ones_like(x), 3 * tf.ones_like(kernel))

    def function(x, skip, up_kernel, up_bias, kernel, bias):
        up = ops.conv2d_transpose(x, up_kernel, up_bias, stride=2)
        return conv(tf.concat([up, skip], axis=-1), kernel) + bias

    kernels = [tf.Variable(each) for each in CASES["transpose_then_conv"][1]]
    found, rules = traced(function, [MAP, SKIP], kernels)
    assert rules == {"transpose_then_conv": 1}
    with lowering.disabled():
        exact, _ = traced(function, [MAP, SKIP], kernels)
    for lowered, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(lowered, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(not test_util.IsMklEnabled(), reason="without oneDNN, TensorFlow fuses fewer ops")
@pytest.mark.parametrize("model", [road_unet, dubai_unet])
def test_tensorflow_fuses_each_activation_of_a_prediction_with_a_convolution(model, monkeypatch):
    """TensorFlow fuses an activation only with a convolution with bias; lowering adds a bias of zeros."""
    monkeypatch.setattr(policy, "direct_convolutions_are_faster", lambda dtype: True)
    options = {"classes": 6} if model is dubai_unet else {}
    weights = model.init_weights(seed=0, filters=(4, 8), **options)

    @tf.function(autograph=False)
    def predict(images):
        with lowering.prediction():
            return fixed(model.forward)(weights, images, depth=1)

    images = random(2, 8, 8, 3)
    eager_context.enable_run_metadata()
    predict(images)
    graphs = eager_context.context().export_run_metadata().partition_graphs
    eager_context.disable_run_metadata()
    ops_run = [node.op for graph in graphs for node in graph.node]
    assert sum("FusedConv2D" in op for op in ops_run) >= 6
    assert not {"Relu", "LeakyRelu", "BiasAdd", "AddV2"} & set(ops_run)


# --- patterns that almost match


@tf.custom_gradient
def convolution_with_its_own_gradient(x):
    kernel = random(3, 3, 6, 4, seed=2)
    return tf.nn.conv2d(x, kernel, 1, "SAME"), lambda upstream: 7 * tf.reduce_sum(upstream) * x


def leaky_relu_of(function):
    return lambda *given: lowering.leaky_relu(function(*given), 0.2)


@tf.custom_gradient
def up_with_its_own_gradient(x):
    return ops.maxpool_up(x), lambda upstream: 7 * tf.nn.avg_pool2d(upstream, 2, 2, "VALID")


def up_used_twice(x, skip, kernel):
    up = ops.maxpool_up(x)
    seen = tf.reduce_mean(up)
    return ops.conv2d_up(tf.concat([up, skip], axis=-1), kernel) + seen


def concatenation_used_twice(x, skip, kernel):
    both = tf.concat([ops.maxpool_up(x), skip], axis=-1)
    seen = tf.reduce_mean(both)
    return ops.conv2d_up(both, kernel) + seen


def up_by(resize):
    return lambda x, skip, kernel: ops.conv2d_up(tf.concat([resize(x), skip], axis=-1), kernel)


def bilinear(x):
    return tf.image.resize(x, 2 * tf.shape(x)[1:3])


def activated_before_norm(x, kernel, *norm):
    return ops.batch_norm(tf.nn.relu(ops.conv2d(x, kernel)), *norm, training=False)


def bias_before_norm(x, kernel, bias, *norm):
    return ops.batch_norm(ops.conv2d(x, kernel, bias), *norm, training=False)


def convolution_used_twice(x, kernel, *norm):
    y = ops.conv2d(x, kernel)
    return tf.nn.relu(y) + ops.batch_norm(y, *norm, training=False)


def unknown_rank(x):
    return tf.compat.v1.placeholder_with_default(x, None)


def unknown_channels(x):
    return tf.compat.v1.placeholder_with_default(x, [None] * 4)


def convolution_of_a_map_with_unknown_channels(x, kernel):
    both = tf.concat([x, unknown_channels(x)], axis=-1)
    both.set_shape([None, None, None, 12])
    return ops.conv2d(both, kernel)


def activated_between(x, skip, up_kernel, up_bias, kernel, bias):
    up = tf.nn.relu(ops.conv2d_transpose(x, up_kernel, up_bias, stride=2))
    return ops.conv2d(tf.concat([up, skip], axis=-1), kernel, bias)


def shifted_between(x, skip, up_kernel, up_bias, kernel, bias):
    up = lowering.conv2d_transpose(x, up_kernel, 2, [[0, 0], [1, 0], [1, 0], [0, 0]])
    return ops.conv2d(tf.concat([tf.nn.bias_add(up, up_bias), skip], axis=-1), kernel, bias)


def conv_of_unknown_kernel(shape):
    return lambda x, kernel: ops.conv2d(x, tf.compat.v1.placeholder_with_default(kernel, shape))


MAP, SKIP = random(2, 4, 6, 6), random(2, 8, 12, 3, seed=1)
UP = [MAP, SKIP], [random(3, 3, 4, 9, seed=2)]
POSITIVE_NORM = [*NORM[:3], NORM[3] ** 2]
NEAR_MISSES = {
    "a dilated convolution": (
        lambda x, kernel: lowering.conv2d(  # stop_gradient: some CPUs lack the gradient of dilation
            tf.stop_gradient(x), tf.stop_gradient(kernel), 1, "SAME", dilations=2
        ),
        ([MAP], [random(3, 3, 6, 4)]),
    ),
    "bilinear up-sampling": (up_by(bilinear), UP),
    "a custom gradient around the up-sampling": (up_by(up_with_its_own_gradient), UP),
    "the up-sampled map is used twice": (up_used_twice, UP),
    "the concatenation is used twice": (concatenation_used_twice, UP),
    "a 5x5 kernel": (up_by(ops.maxpool_up), ([MAP, SKIP], [random(5, 5, 4, 9, seed=2)])),
    "the skip comes first": (
        lambda x, skip, kernel: ops.conv2d_up(tf.concat([skip, ops.maxpool_up(x)], axis=-1), kernel),
        UP,
    ),
    "concatenated rows": (
        lambda x, skip, kernel: ops.conv2d_up(tf.concat([ops.maxpool_up(x), skip], axis=1), kernel),
        ([MAP, random(2, 8, 12, 6, seed=1)], [random(3, 3, 4, 6, seed=2)]),
    ),
    "an activation before the normalisation": (
        activated_before_norm,
        ([MAP], [random(3, 3, 6, 4, seed=1), *POSITIVE_NORM]),
    ),
    "a bias before the normalisation": (
        bias_before_norm,
        ([MAP], [random(3, 3, 6, 4, seed=1), random(4), *POSITIVE_NORM]),
    ),
    "the convolution is used twice": (
        convolution_used_twice,
        ([MAP], [random(3, 3, 6, 4, seed=1), *POSITIVE_NORM]),
    ),
    "too few channels for Winograd": (ops.conv2d, ([MAP], [random(3, 3, 6, 4)])),
    "an activation between two convolutions": (
        activated_between,
        ([MAP, SKIP], CASES["transpose_then_conv"][1]),
    ),
    "a padding that moves the up-sampled map": (
        shifted_between,
        ([MAP, SKIP], CASES["transpose_then_conv"][1]),
    ),
    "a kernel of unknown rank": (conv_of_unknown_kernel(None), ([MAP], [random(3, 3, 6, 4)])),
    "a kernel of unknown channels": (
        conv_of_unknown_kernel([3, 3, 6, None]),
        ([MAP], [random(3, 3, 6, 4)]),
    ),
    "an unknown rank before Winograd": (
        lambda x, kernel: ops.conv2d(unknown_rank(x), kernel),
        ([random(1, 4, 6, 128)], [random(3, 3, 128, 128)]),
    ),
    "an unknown number of channels before Winograd": (
        lambda x, kernel: ops.conv2d(unknown_channels(x), kernel),
        ([random(1, 4, 6, 128)], [random(3, 3, 128, 128)]),
    ),
    "an unknown number of frozen channels": (
        lambda x, skip, kernel: frozen_skip(x, unknown_channels(skip), kernel),
        ([MAP, MAP], [random(3, 3, 5, 12)]),
    ),
}


PREDICTION_NEAR_MISSES = {
    "a grouped convolution of concatenated maps": (
        lambda x, kernel: ops.conv2d(tf.concat([x, x], axis=-1), kernel),
        ([MAP], [random(3, 3, 6, 4)]),
    ),
    "a concatenated map without channels": (
        lambda x, kernel: ops.conv2d(tf.concat([x, x[..., :0]], axis=-1), kernel),
        ([MAP], [random(3, 3, 6, 4)]),
    ),
    "a concatenated map with an unknown number of channels": (
        convolution_of_a_map_with_unknown_channels,
        ([MAP], [random(3, 3, 12, 4)]),
    ),
    "a custom gradient around the convolution": (
        leaky_relu_of(convolution_with_its_own_gradient),
        ([MAP], []),
    ),
    "an activation before the leaky ReLU": (
        leaky_relu_of(lambda x, kernel: tf.nn.relu(ops.conv2d(x, kernel))),
        ([MAP], [random(3, 3, 6, 4)]),
    ),
    "three concatenated maps": (
        lambda x, kernel: ops.conv2d(tf.concat([x, x, x], axis=-1), kernel),
        ([MAP], [random(3, 3, 18, 4)]),
    ),
    "a convolution with one channel, added to all channels": (
        lambda x, kernel, bias: lowering.bias_add(x + ops.conv2d(x, kernel), bias),
        ([MAP], [random(3, 3, 6, 1), random(6)]),
    ),
}


@pytest.mark.parametrize("case", [*NEAR_MISSES, *PREDICTION_NEAR_MISSES])
def test_a_pattern_that_almost_matches_is_not_rewritten(case):
    function, given = (NEAR_MISSES | PREDICTION_NEAR_MISSES)[case]
    context = lowering.prediction if case in PREDICTION_NEAR_MISSES else contextlib.nullcontext
    found, rules = traced(function, *given, context=context)
    assert not rules
    with lowering.disabled():
        exact, _ = traced(function, *given)
    for lowered, expected in zip(found, exact, strict=True):
        np.testing.assert_array_equal(lowered, expected)


@pytest.mark.parametrize("off", ["the mode", "the block", "a GPU", "eager"])
def test_lowering_can_be_disabled(off, monkeypatch):
    before = lowering.applied()
    if off == "the mode":
        lowering.configure("off")
        traced(up_and_skip, *UP)
        lowering.configure("auto")
    elif off == "the block":
        with lowering.disabled():
            traced(up_and_skip, *UP)
    elif off == "a GPU":
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
        traced(up_and_skip, *UP)
    else:
        up_and_skip(MAP, SKIP, *UP[1])
    assert lowering.applied() == before


@pytest.mark.parametrize("rule", ["winograd", "transpose_then_conv"])
@pytest.mark.parametrize("dtype, applied", [(tf.float32, True), (tf.bfloat16, False)])
def test_with_amx_bfloat16_convolutions_are_not_rewritten(rule, dtype, applied, monkeypatch):
    monkeypatch.setattr(winograd, "MIN_CHANNEL_PRODUCT", 1 if rule == "winograd" else 2**14)
    monkeypatch.setattr(policy, "_has_amx", lambda: True)
    function, kernels, skip_scale = CASES[rule]
    activations = [MAP, SKIP] if skip_scale else [MAP]
    _, rules = traced(function, activations, kernels, dtype)
    assert (rule in rules) == applied


def test_counts_of_rules_are_formatted_as_text():
    counts = {"winograd": 13, "nearest_then_skip": 4}
    assert lowering.described(counts) == "4 x nearest_then_skip, 13 x winograd"
    assert lowering.described({}) == "no rule applied"
