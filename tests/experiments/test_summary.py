"""The summary of operations, against hand counts, edited ops, a brute-force probe and the profiler."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from small_networks import small

from core import lowering, ops
from core.models import dubai_unet, road_unet
from core.runtime import cli
from core.runtime.errors import InputError
from core.weights import count
from experiments import cityscape_road, draw_network, dubai_aerial, summary
from experiments.benchmark import flops, op_times, operations, receptive_fields


def network(module, **options):
    """Return the forward pass and the weights of a small network. module, options: as in `small`."""
    parts = small(module, **options)
    return parts["forward"], parts["init_weights"](seed=0)


def test_road_has_a_line_per_call_with_the_articles_sizes():
    experiment = cityscape_road.experiment(cli.parse(cityscape_road.define_flags))
    weights = experiment.init_weights(seed=0)
    with lowering.disabled():
        found = operations.of_network(experiment.forward, weights, [1, 64, 96, 3])
        forward = tf.function(lambda images: experiment.forward(weights, images))
        gflop = flops.gflop(forward, tf.TensorSpec([1, 64, 96, 3]))
    assert 2e-9 * sum(each.multiply_adds for each in found) == pytest.approx(gflop)
    down = ["conv2d_down", "conv2d_down", "maxpool_down"]
    up = ["maxpool_up, ConcatV2", "conv2d_up", "conv2d_up"]
    assert [each.name for each in found] == ["RealDiv", *4 * down, *down[:2], *4 * up, "conv2d"]
    by_weights = {each.weights[0]: each for each in found if each.weights}
    assert by_weights.keys() == weights.keys()  # each variable is in exactly one line
    assert sum(each.parameters for each in found) == count(weights)
    first_up = by_weights["up3/conv1"]  # 3x3, from 256 + 128 to 128 channels, at an eighth of the size
    assert first_up.output.shape == [1, 8, 12, 128] and first_up.parameters == 9 * 384 * 128
    assert first_up.multiply_adds == 9 * 384 * 128 * 8 * 12


def test_the_dubai_summary_names_layers_and_training_dropout():
    forward, weights = network(dubai_unet, classes=3)
    found = operations.of_network(forward, weights, [1, 8, 8, 3], training=True)
    assert [each.name for each in found][:4] == ["RealDiv", "conv2d, Relu", "dropout", "conv2d, Relu"]
    assert found[1].weights == ("down0/conv1/kernel", "down0/conv1/bias")
    lines = summary.table(found, {1: 3}, count(weights))
    assert lines[2].split() == ["conv2d,", "Relu", "down0/conv1", *"8 x 8 x 4 112".split(), "0.0000", "-"]
    assert lines[-1].split()[:2] == ["total", f"{count(weights):,}"]


def brute_force_side(forward, weights, index, length):
    """Return the largest width of the receptive fields of an operation's output pixels, in pixels.

    The test images differ from a black image in one column each. index: `Operation.index`. length: the width
    of the images. Receptive fields that contain the first or the last column are left out.
    """
    images = np.zeros([length + 1, 4, length, 3], np.float32)
    images[np.arange(length), :, np.arange(length)] = 1000

    @tf.function
    def outputs(images):
        with operations.scopes():
            logits = forward(weights, images)
        return operations.by_call(images, logits)[index][-1].outputs[0]

    with lowering.disabled():
        y = outputs(images).numpy()
    changed = (y[:-1] != y[-1:]).any(axis=(1, 3))  # [input column, output column]
    reached = [np.flatnonzero(column) for column in changed.T]
    inner = [each for each in reached if len(each) and each[0] > 0 and each[-1] < length - 1]
    return max(each[-1] - each[0] + 1 for each in inner)


def test_receptive_fields_equal_a_brute_force_probe_and_the_recursion_by_hand():
    forward, weights = network(road_unet)  # two levels
    sides = receptive_fields.sides(forward, weights)
    # the image, two 3x3 convolutions, 2x2 pooling, two convolutions at stride 2
    assert [sides[index] for index in range(-1, 5)] == [1, 3, 5, 6, 10, 14]
    positive = {name: tf.Variable(tf.ones_like(weight)) for name, weight in weights.items()}
    for index in range(5, 9):  # up, two convolutions, logit
        assert sides[index] == brute_force_side(forward, positive, index, length=48)


def test_an_edited_op_changes_its_line_and_the_receptive_field(monkeypatch):
    def repeated(x):
        return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)

    forward, weights = network(road_unet)
    before = receptive_fields.sides(forward, weights)
    monkeypatch.setattr(ops, "maxpool_up", repeated)
    names = [each.name for each in operations.of_network(forward, weights, [1, 8, 8, 3])]
    assert "maxpool_up, ConcatV2" in names and receptive_fields.sides(forward, weights) == before

    def excited(x):
        return repeated(x * tf.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True)))

    monkeypatch.setattr(ops, "maxpool_up", excited)
    after = receptive_fields.sides(forward, weights)
    # the mean depends on the whole image, so the receptive field has no bound
    assert after[4] == before[4] and after[5] is None


def test_times_and_bytes_are_attributed_to_operations():
    experiment = dubai_aerial.experiment(cli.parse(dubai_aerial.define_flags))
    experiment = dataclasses.replace(experiment, **small(dubai_unet, filters=(8, 128), classes=6))
    weights = experiment.init_weights(seed=0)
    images = 255 * tf.random.stateless_uniform([2, 64, 64, 3], [0, 0])
    costs, rules = op_times.measure(experiment, weights, images, steps=1)
    assert costs.keys() == {"off", "auto"} and "winograd" in rules
    with lowering.disabled():
        found = operations.of_network(experiment.forward, weights, images.shape, training=True)
    owners = {(direction, each.index) for direction in op_times.PASSES for each in found}
    conv2 = next(line.index for line in found if "down1/conv2/kernel" in line.weights)
    for each in costs.values():
        total = sum(cost.allocated for cost in each.values())
        assert sum(each[owner].allocated for owner in owners) > 0.8 * total > 0
        # bytes of at least the output, or of its gradient
        for cost in (each["forward", conv2], each["backward", conv2]):
            assert cost.milliseconds > 0 and cost.allocated >= 2 * 32 * 32 * 128 * 4
    transposed = next(line.index for line in found if line.name.startswith("conv2d_transpose"))
    assert costs["off"]["forward", transposed].milliseconds > 0
    assert "transpose_then_conv" in rules and costs["auto"]["forward", transposed].allocated == 0  # merged
    total = summary.cost_table(found, costs)[-1].split()[1:]
    assert len(total) == 8 and all(float(number) > 0 for number in total)


def test_command_prints_both_tables(capsys, road_run, small_articles):
    arguments = [f"--run_dir={road_run}", "--time", "--batch_size=1", "--steps=1", "--precision=bfloat16"]
    assert summary.run(cli.parse(summary.define_flags, arguments)) == 0
    printed = capsys.readouterr().out
    assert "cityscape_road, images of 32x32 pixels" in printed and "receptive field" in printed
    assert "per step of 1 images, bfloat16 on" in printed and "nearest_then_skip" in printed
    arguments = ["--experiment=cityscape_road", "--size=32"]
    assert summary.run(cli.parse(summary.define_flags, arguments)) == 0
    assert "cityscape_road, images of 32x32 pixels" in capsys.readouterr().out
    for command in (summary, draw_network):
        with pytest.raises(InputError, match="--size=31"):
            command.run(cli.parse(command.define_flags, ["--experiment=cityscape_road", "--size=31"]))


def test_networks_with_many_kinds_of_layers_and_residual_sums_are_drawn():
    def forward(weights, x):
        for side in range(1, 9):
            x = ops.conv2d(x, tf.ones([side, side, 3, 3]))
        x = ops.maxpool_down(ops.maxpool_down(x + ops.conv2d(x, tf.ones([1, 1, 3, 3]))))
        return ops.conv2d(x, tf.ones([1, 1, 3, 3]))

    drawn = draw_network.svg(draw_network.feature_maps(forward, {}, 8))
    assert drawn.count(f'stroke="{draw_network.ARROWS["max-pooling"]}"') == 2
    assert "M0 0" not in drawn


def test_an_op_with_a_gradient_of_its_own_has_a_row_and_one_line_in_the_diagram(monkeypatch):
    @tf.custom_gradient
    def conv(x, kernel):
        return ops.conv2d(x, kernel), lambda upstream: (upstream, kernel)

    monkeypatch.setattr(ops, "own_conv", conv, raising=False)

    def forward(weights, x, **options):
        return ops.conv2d(ops.own_conv(x, weights["kernel"]), tf.ones([1, 1, 3, 3]))

    weights = {"kernel": tf.Variable(tf.ones([3, 3, 3, 3]), name="kernel")}
    names = [each.name for each in operations.of_network(forward, weights, [1, 8, 8, 3])]
    assert [name.split(",")[0] for name in names] == ["own_conv", "conv2d"]
    image, first, second = draw_network.feature_maps(forward, weights, 8)
    assert first.sources == [image] and second.sources == [first]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "--experiment, --run_dir: give one"),
        (["--experiment=road"], "no experiment 'road'; python -m experiments lists them"),
        (["--run_dir=/no/such/run"], "/no/such/run: no flags.cfg"),
        (["--experiment=cityscape_road", "--size=40"], "--size=40: must be a multiple of 16"),
    ],
)
def test_invalid_flags_are_errors(arguments, expected):
    with pytest.raises(InputError, match=expected):
        summary.run(cli.parse(summary.define_flags, arguments))
