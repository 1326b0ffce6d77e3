"""The benchmark: arithmetic against hand counts, twins against ours, the command end to end."""

import inspect
import json
import math
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from core import weights
from core.lowering import fast_convolution
from core.models import dubai_unet, mobilenet_v2, road_unet
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article
from experiments.benchmark import comparison as benchmark
from experiments.benchmark import flops, keras_baselines, measurement, ours

ARTICLES = ("cityscape_road", "oxford_pets", "oxford_pets_mobilenet", "cityscapes_labels", "dubai_aerial")


# --- arithmetic


def test_multiply_adds_of_a_small_network_by_hand():
    """A convolution of stride 2, a depthwise one, a transposed one; the last two in a function."""
    first, depthwise, last = (
        tf.Variable(tf.ones(shape)) for shape in ([3, 3, 3, 4], [3, 3, 4, 1], [2, 2, 5, 4])
    )

    @tf.function
    def rest(x):
        x = tf.nn.depthwise_conv2d(x, depthwise, [1, 1, 1, 1], "SAME")
        return tf.nn.conv2d_transpose(x, last, [2, 8, 6, 5], 2)

    def forward(images):
        return rest(tf.nn.conv2d(images, first, 2, "SAME"))

    @tf.function
    def train(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(images) ** 2)
        return tape.gradient(loss, [first, depthwise, last])

    images = tf.TensorSpec([2, 8, 6, 3])
    pixels = 2 * 4 * 3  # at half the size, where all three have their smaller side
    counts = pixels * np.array([4 * 27, 4 * 9, 4 * 5 * 4])
    assert flops.gflop(tf.function(forward), images) == pytest.approx(2e-9 * counts.sum())
    # the gradient of each kernel, and of the input of all but the first
    expected = 2e-9 * (3 * counts.sum() - counts[0])
    assert flops.gflop(train, images) == pytest.approx(expected)
    twice = tf.function(lambda images: forward(images) + forward(images))
    assert flops.gflop(twice, images) == pytest.approx(4e-9 * counts.sum())


def gflop_by_hand(made, size, batch):
    """10^9 operations of training and of prediction, for an image of a batch, from the kernels' shapes."""
    ahead, kernels = [], []  # an input's gradient takes as many as the way ahead
    shapes = {name: kernel.shape for name, kernel in made.items()}
    once = 0.0
    if any("transpose" in name for name in made):  # Dubai's
        for level in range(len(dubai_unet.FILTERS) - 1):
            shapes |= merged(made, level)
            once += merging(made, level, size**2, batch)
    for name, shape in shapes.items():
        if len(shape) == 4:
            level = int(name[name.index("/") - 1]) if "/" in name and name[0] in "du" else 0
            level += "transpose" in name  # each number of what it makes larger meets its whole kernel
            side, (*window, inside, outside) = size >> level, shape
            road_up = re.fullmatch("up[0-9]/conv[12]", name)  # transposed: not a fast one
            if window == [3, 3] and inside * outside >= fast_convolution.WIDE and not road_up:
                windows = math.ceil(side / 4)  # of six rows of three taps, where four of nine would be
                taps = 6 * 3 * 3 / batch  # are made of the nine, once, and the gradient of these of theirs
                ahead.append(inside * outside * (18 * windows * side + taps))
                in_line = windows * (side + 1)  # of a batch, a pixel less where a tap is beside it
                kernels.append(inside * outside * (6 * (3 * in_line - 2 / batch) + taps))
            else:
                ahead.append(math.prod(shape) * side**2 - spared(name, shape, size**2))
                kernels.append(ahead[-1])
    return 2e-9 * (2 * sum(ahead) - ahead[0] + sum(kernels) + once), 2e-9 * sum(ahead)


def merged(made, level):
    """The shapes of Dubai's kernels as it computes: a transposed 2x2 convolution and a 3x3 are one."""
    up, conv1 = f"up{level}/transpose/kernel", f"up{level}/conv1/kernel"
    (_, _, between, inside), (_, _, both, outside) = made[up].shape, made[conv1].shape
    return {up: (4, 4, outside, inside), conv1: (3, 3, both - between, outside)}


def merging(made, level, pixels, batch):
    """Multiply-adds per image that make the merged kernel and the map of the bias, in training."""
    _, _, between, inside = made[f"up{level}/transpose/kernel"].shape
    outside = made[f"up{level}/conv1/kernel"].shape[3]
    kernel = 3 * 9 * between * outside * (4 * inside + 1)  # of the bias as well, and both of the gradients
    return (kernel + 2 * 9 * outside * pixels / 4**level) / batch


def spared(name, shape, pixels):
    """Multiply-adds that the road network spares: doubled pixels meet 4 of 9 taps."""
    if not re.fullmatch("up[0-9]/conv1", name):
        return 0
    *_, outside, inside = shape  # of which as many as outside come from the skip
    return 5 * outside * (inside - outside) * pixels / 4 ** int(name[2])


def not_followed(made, pixels):
    """Multiply-adds that MobileNetV2's U-Net spares: gradients of what the frozen encoder hands on."""
    kernels = ["logits/kernel", *(f"up{level}/transpose/kernel" for level in range(3))]
    *taps, _ = mobilenet_v2.TAP_CHANNELS
    return sum(
        9 * made[kernel].shape[2] * channels * pixels / 4**halved
        for halved, (kernel, channels) in enumerate(zip(kernels, taps), start=1)
    )


# --- twins


def network_of(name):
    """An article's experiment, its weights, and what tells the peers which network it is."""
    module = article(name)
    experiment = module.experiment(cli.parse(module.define_flags))
    network = inspect.getmodule(experiment.forward)
    channels = 1 if len(experiment.classes) == 2 else len(experiment.classes)
    return (
        experiment,
        experiment.init_weights(seed=0),
        {
            "network": network.__name__.split(".")[-1],
            "filters": network.FILTERS,
            "channels": channels,
        },
    )


@pytest.mark.parametrize("name", ARTICLES)
def test_keras_twin_has_the_parameters_and_the_arithmetic_of_ours(name, monkeypatch):
    monkeypatch.setattr(fast_convolution, "WIDE", math.inf)  # what they spare, they alone spare
    experiment, made, spec = network_of(name)
    trained = [variable for variable in made.values() if variable.trainable]
    model = keras_baselines.NETWORKS[spec["network"]](spec["filters"], spec["channels"])
    shapes = sorted(tuple(variable.shape) for variable in trained)
    assert shapes == sorted(tuple(variable.shape) for variable in model.trainable_weights)
    assert model.count_params() == weights.count(made)

    def training_gflop(forward, variables):
        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(forward(images))
            return tape.gradient(loss, variables)

        return flops.gflop(gradients, tf.TensorSpec([2, 32, 64, 3]))

    mine = training_gflop(lambda images: experiment.forward(made, images, training=True), trained)
    theirs = training_gflop(lambda images: model(images, training=True), model.trainable_variables)
    pixels = 2 * 32 * 64
    mine += 2e-9 * 3 * sum(spared(name, kernel.shape, pixels) for name, kernel in made.items())
    if name == "oxford_pets_mobilenet":
        mine += 2e-9 * not_followed(made, pixels)
    if name == "dubai_aerial":
        for level in range(len(dubai_unet.FILTERS) - 1):
            for kernel, shape in merged(made, level).items():
                seen = pixels / 4 ** (level + kernel.endswith("transpose/kernel"))
                mine += 2e-9 * 3 * (math.prod(made[kernel].shape) - math.prod(shape)) * seen
            mine -= 2e-9 * 2 * merging(made, level, pixels / 2, batch=2)
    assert mine == pytest.approx(theirs, rel=1e-12) and mine > 0


@pytest.mark.parametrize("mode, precision", [("train", "bfloat16"), ("infer", "float32")])
def test_turn_of_keras(mode, precision):
    network = {"network": "labels_unet", "filters": [4, 6], "channels": 5, "size": [16, 32]}
    spec = types.SimpleNamespace(**network, mode=mode, precision=precision, batch_size=2, seconds=0)
    before, begun = keras.config.dtype_policy(), time.time()
    try:
        figures = keras_baselines.measure(spec)
    finally:
        keras.config.set_dtype_policy(before)
    assert figures["images_per_second"] == pytest.approx(2 / figures["step_seconds"])
    assert begun < figures["first_step_at"] < time.time()
    trained, total = figures["parameters"]
    assert total - trained == 2 * (4 * 4 + 2 * 6 + 4)  # mean and variance after each ReLU


@pytest.fixture(scope="module")
def torch_python():
    """A Python that has PyTorch: this one, or that which TORCH_PYTHON names."""
    python = os.environ.get("TORCH_PYTHON", sys.executable)
    if not benchmark.imports_torch(python):
        pytest.skip(f"{python} has no PyTorch; TORCH_PYTHON may name one that has")
    return python


@pytest.mark.parametrize("name", ARTICLES)
def test_turn_of_torch_is_of_a_network_of_our_size(name, torch_python):
    _, made, spec = network_of(name)
    spec |= {"size": [32, 64], "mode": "train", "precision": "bfloat16", "batch_size": 1, "seconds": 0}
    figures = benchmark.take_turn("torch", spec, torch_python)
    trained = {name: variable for name, variable in made.items() if variable.trainable}
    assert figures["parameters"] == [weights.count(trained), weights.count(made)]
    assert figures["first_step_seconds"] > figures["step_seconds"] > 0


# --- a turn


def test_a_first_and_slow_steps_are_not_in_the_median():
    pauses = iter([0.3, 0.2, 0.2, 0.1, *[0.001] * 1000])
    begun = time.time()
    figures = measurement.steps(lambda: time.sleep(next(pauses)), 16, seconds=0.15)
    assert 0.001 <= figures["step_seconds"] < 0.05
    assert figures["step_seconds"] < figures["mean_step_seconds"] < 0.1
    assert figures["images_per_second"] == 16 / figures["step_seconds"]
    assert 0.3 <= figures["first_step_at"] - begun < 0.5
    assert figures["cores_busy"] < 0.9


def test_timing_ends_after_the_seconds_and_the_least_number_of_calls():
    assert len(measurement.timed(lambda: None, seconds=0, least=7)[0]) == 7
    taken, cores = measurement.timed(lambda: sum(range(100_000)), seconds=0.2, least=1)
    assert len(taken) > 3 and sum(taken) < 1 and 0 < cores < 1.2


def test_memory_is_that_of_the_process_not_of_the_one_that_started_it():
    command = [sys.executable, "-c", "import measurement; print(measurement.peak_mib())"]
    done = subprocess.run(command, cwd=Path(measurement.__file__).parent, capture_output=True, text=True)
    assert 1 < float(done.stdout) < 100 < measurement.peak_mib()


@pytest.mark.parametrize("mode, images", [("infer", 3), ("input", 6)])
def test_our_turn_is_on_whole_batches_of_every_image(mode, images, pairs, tmp_path):
    """Batches of four, of which neither 3 nor 6 images are a multiple."""
    arguments = ["--size=32", "--batch_size=4", f"--data_dir={pairs}", f"--cache_dir={tmp_path}"]
    spec = types.SimpleNamespace(module="experiments.cityscape_road", flags=arguments, mode=mode, seconds=0)
    figures = ours.measure(spec)
    expected = gflop_by_hand(road_unet.init_weights(seed=0), 32, batch=4)[1] if mode == "infer" else 0
    assert figures["gflop_per_image"] == pytest.approx(expected)
    assert figures["images_per_second"] == 4 / figures["step_seconds"] > 0
    assert figures["parameters"] == [1_961_152, 1_961_152]
    module = article("cityscape_road")
    flags = cli.parse(module.define_flags, arguments)
    feed = ours.feed(module.experiment(flags), flags, mode)
    epoch = [next(feed)[0].numpy() for _ in range(ours.EPOCH)]
    assert {batch.shape for batch in epoch} == {(4, 32, 32, 3)}
    assert len({image.tobytes() for batch in epoch for image in batch}) == images


# --- the command


def said(rate, **figures):
    """What a contestant says, made up."""
    defaults = {"first_step_seconds": 3.0, "peak_mib": 100.0, "cores_busy": 1.0, "versions": {}}
    step = {"step_seconds": 16 / rate, "mean_step_seconds": 20 / rate}
    return {"images_per_second": rate, **step, **defaults, **figures}


def test_ratios_and_shares_are_of_the_fastest_turns():
    turns = {
        "machine": [
            {"conv_gflops": 100.0, "memory_gb_per_s": 20.0, "versions": {}},
            {"conv_gflops": 80.0, "memory_gb_per_s": 30.0, "versions": {}},
        ],
        "ours": [
            said(rate, gflop_per_image=2.0, device="1 CPU cores", versions={"numpy": "2"})
            for rate in (10.0, 20.0)
        ],
        "keras": [said(10.0, peak_mib=200.0), said(8.0)],
        "torch": [said(40.0, versions={"torch": "2.13"}), said(25.0)],
    }
    figures = benchmark.summary(turns)
    assert figures["images_per_second"] == 20 and figures["step_seconds"] == 0.8
    assert (figures["gflops"], figures["share_of_limit"]) == (40, 0.4)
    assert (figures["conv_gflops_limit"], figures["memory_gb_per_s"]) == (100, 30)
    assert figures["versions"] == {"numpy": "2", "torch": "2.13"}
    assert figures["peers"]["keras"]["ratio"] == 2 and figures["peers"]["torch"]["ratio"] == 0.5
    assert figures["peers"]["keras"]["peak_mib"] == 200
    asked = {"experiment": "cityscape_road", "mode": "train", "precision": "float32", "batch_size": 16}
    text = benchmark.table(asked | figures)
    assert "2.00 times the rate of keras (turn by turn: 10.0 against 10.0, 20.0 against 8.0)" in text
    (row,) = (line.split() for line in text.splitlines() if line.startswith("torch"))
    assert row == ["torch", "40.0", "0.4000", "0.5000", "1.00", "100", "3.0"]
    (row,) = (line.split() for line in text.splitlines() if line.startswith("this code"))
    assert row[2:] == ["20.0", "0.8000", "1.0000", "40.0", "40.0%", "1.00", "100", "3.0"]


def command(*arguments):
    """Run the benchmark as a user does; stdout and stderr as text."""
    whole = [sys.executable, "-m", "experiments.benchmark", *map(str, arguments)]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_one_json_line_with_a_peer_and_a_sentence_for_the_missing_one(shared_cache, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    done = command(
        *("--experiment=dubai_aerial", "--mode=train", "--batch_size=1", "--precision=bfloat16"),
        *("--peers=keras,torch", f"--torch_python={tmp_path / 'python'}", f"--cache_dir={shared_cache}"),
        *("--seconds=0", "--turns=1", "--json"),
    )
    assert done.returncode == 0, done.stderr
    sentence = f"{tmp_path / 'python'} cannot import torch: going on without it.\n"
    assert done.stderr.endswith(sentence) or done.stderr.startswith(sentence)
    (line,) = done.stdout.splitlines()
    figures = json.loads(line)
    asked = {key: figures[key] for key in ("experiment", "mode", "precision", "batch_size")}
    assert list(asked.values()) == ["dubai_aerial", "train", "bfloat16", 1]
    made = dubai_unet.init_weights(seed=0, classes=6)
    assert figures["gflop_per_image"] == pytest.approx(gflop_by_hand(made, 160, batch=1)[0])
    rate = figures["images_per_second"]
    assert rate == 1 / figures["step_seconds"] and figures["turns"] == [rate]
    assert figures["gflops"] == pytest.approx(rate * figures["gflop_per_image"])
    assert figures["share_of_limit"] == pytest.approx(figures["gflops"] / figures["conv_gflops_limit"])
    assert figures["conv_gflops_limit"] > 1 and figures["memory_gb_per_s"] > 0.5
    assert figures["peak_mib"] > 100 and figures["first_step_seconds"] > figures["step_seconds"]
    assert {"python", "tensorflow", "keras", "numpy"} <= set(figures["versions"])
    (peer,) = figures["peers"].values()
    assert figures["peers"]["keras"]["ratio"] == pytest.approx(rate / peer["images_per_second"])


def fake(figures):
    """A contestant that says these figures."""
    return ["-c", f"print('noise'); print({json.dumps(figures)!r})"]


def run_with(monkeypatch, cache, turns, *arguments):
    monkeypatch.setattr(benchmark, "TURNS", turns)
    arguments = ["--experiment=dubai_aerial", f"--cache_dir={cache}", *arguments]
    return benchmark.run(cli.parse(benchmark.define_flags, arguments))


@pytest.fixture
def contestants():
    step = said(8.0, first_step_at=time.time(), parameters=[2, 3])
    return {
        "machine": fake({"conv_gflops": 100.0, "memory_gb_per_s": 20.0, "versions": {}}),
        "ours": fake({**step, "gflop_per_image": 1.0, "device": "no device"}),
        "keras": fake(step),
        "torch": fake(step),
    }


def test_contestants_take_turns(monkeypatch, shared_cache, contestants, capsys):
    order, start = [], benchmark.take_turn
    monkeypatch.setattr(benchmark, "take_turn", lambda name, *rest: order.append(name) or start(name, *rest))
    assert not run_with(monkeypatch, shared_cache, contestants, "--peers=keras")
    assert order == ["machine", "ours", "keras"] * 2
    assert "1.00 times the rate of keras" in capsys.readouterr().out


def test_a_turn_that_fails_and_a_twin_that_differs_are_said(monkeypatch, shared_cache, contestants):
    wrong = fake({"images_per_second": 1.0, "first_step_at": 0.0, "parameters": [2, 4]})
    with pytest.raises(InputError, match="keras's twin of dubai_unet is another network"):
        run_with(monkeypatch, shared_cache, contestants | {"keras": wrong}, "--peers=keras")
    fails = contestants | {"ours": ["-c", "raise MemoryError('no more')"]}
    with pytest.raises(InputError, match=r"a turn of ours failed \(MemoryError: no more\).*--batch_size"):
        run_with(monkeypatch, shared_cache, fails)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--experiment="], "--experiment: name one"),
        (["--experiment=road"], "no experiment 'road'"),
        (["--experiment=benchmark"], "no experiment 'benchmark'"),
        (["--mode=fly"], "mode"),
        (["--peers=jax"], "must be among keras, torch"),
        (["--peers=keras", "--mode=input"], "--peers"),
        (["--batch_size=0"], "batch_size"),
        (["--seconds=-1"], "seconds"),
    ],
)
def test_senseless_flags(arguments, expected, monkeypatch, shared_cache):
    with pytest.raises(InputError, match=expected):
        run_with(monkeypatch, shared_cache, {}, *arguments)
