"""The benchmark: one measurement, the comparison of several, and the command."""

import json
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import tensorflow as tf

from core import lowering
from core.models import road_unet
from core.runtime import cli
from core.runtime.errors import InputError
from core.weights import count
from experiments import article
from experiments.benchmark import comparison, machine, measurement, table, this_code


@pytest.fixture
def wait(monkeypatch):
    """Replace the clocks of `measurement`; return a function (seconds) that advances them.

    The process's own clock, which counts processor time, advances half as fast.
    """
    now = [100.0]
    clocks = {"time": lambda: now[0], "perf_counter": lambda: now[0], "process_time": lambda: now[0] / 2}
    monkeypatch.setattr(measurement, "time", types.SimpleNamespace(**clocks))

    def advance(seconds):
        now[0] += seconds

    return advance


def test_throughput_excludes_the_first_step_and_slow_steps(wait):
    pauses = iter([0.3, 0.2, 0.2, 0.1, *[0.001] * 1000])
    metrics = measurement.measure_steps(lambda: wait(next(pauses)), 16, seconds=0.15)
    assert metrics["step_seconds"] == pytest.approx(0.001)
    assert metrics["step_seconds"] < metrics["mean_step_seconds"] < 0.1
    assert metrics["images_per_second"] == 16 / metrics["step_seconds"]
    assert metrics["first_step_at"] == pytest.approx(100.3)
    assert metrics["cores_busy"] == pytest.approx(0.5)


def test_timing_ends_after_a_time_and_a_minimum_number_of_calls(wait):
    assert len(measurement.time_calls(lambda: wait(0.01), seconds=0, least=7)[0]) == 7
    durations, cores = measurement.time_calls(lambda: wait(0.05), seconds=0.19, least=1)
    assert durations == pytest.approx([0.05] * 4) and cores == pytest.approx(0.5)


def test_peak_memory_excludes_the_parent_process():
    command = [sys.executable, "-c", "import measurement; print(measurement.peak_mib())"]
    done = subprocess.run(command, cwd=Path(measurement.__file__).parent, capture_output=True, text=True)
    assert 1 < float(done.stdout) < 100 < measurement.peak_mib()


def test_lowering_off_measures_the_plain_network(pairs, tmp_path):
    arguments = ["--size=32", "--batch_size=3", f"--data_dir={pairs}", f"--cache_dir={tmp_path}"]
    arguments += ["--lowering=off"]
    spec = types.SimpleNamespace(
        module="experiments.cityscape_road", flags=arguments, mode="infer", seconds=0
    )
    try:
        metrics = this_code.measure(spec)
    finally:
        lowering.configure("auto")
    # 1.751 GFLOP at 128x128 pixels if every output of a convolution uses its whole kernel
    assert metrics["rules"] == {} and metrics["gflop_per_image"] == pytest.approx(1.751 / 16, rel=1e-3)


@pytest.mark.parametrize("mode, images", [("train", 6), ("infer", 3), ("input", 6)])
def test_our_measurement_uses_every_image_in_full_batches(mode, images, small_articles, pairs, tmp_path):
    """The set has 6 training images and 3 validation images; neither is a multiple of the batch size 4."""
    arguments = ["--size=32", "--batch_size=4", f"--data_dir={pairs}", f"--cache_dir={tmp_path}"]
    spec = types.SimpleNamespace(module="experiments.cityscape_road", flags=arguments, mode=mode, seconds=0)
    metrics = this_code.measure(spec)
    # one pass has 0.0021 GFLOP if every output of a convolution uses its whole kernel
    passes = {"train": 3, "infer": 1, "input": 0}[mode]
    assert passes * 0.0011 <= metrics["gflop_per_image"] <= passes * 0.0022
    assert metrics["images_per_second"] == 4 / metrics["step_seconds"] > 0
    parameters = count(road_unet.init_weights(seed=0))
    assert metrics["parameters"] == [parameters, parameters]
    assert ("nearest_then_skip" in metrics["rules"]) == (mode != "input")
    module = article("cityscape_road")
    flags = cli.parse(module.define_flags, arguments)
    feed = this_code.feed(module.experiment(flags), flags, mode)
    epoch = [next(feed)[0].numpy() for _ in range(this_code.EPOCH)]
    assert {batch.shape for batch in epoch} == {(4, 32, 32, 3)}
    assert len({image.tobytes() for batch in epoch for image in batch}) == images


# --- the command


def metrics_of(rate, **metrics):
    """Return the metrics of an invented measurement with `rate` images per second."""
    defaults = {"first_step_seconds": 3.0, "peak_mib": 100.0, "cores_busy": 1.0, "versions": {}}
    step = {"step_seconds": 16 / rate, "mean_step_seconds": 20 / rate}
    return {"images_per_second": rate, **step, **defaults, **metrics}


def test_shares_use_the_fastest_measurement_and_ratios_are_medians_over_the_turns():
    ours = {"gflop_per_image": 2.0, "device": "1 CPU cores", "versions": {"numpy": "2"}, "rules": {}}
    measurements = {
        "machine": [
            {"conv_gflops": 100.0, "memory_gb_per_s": 20.0, "versions": {}},
            {"conv_gflops": 80.0, "memory_gb_per_s": 30.0, "versions": {}},
        ],
        "ours": [metrics_of(10.0, **ours), metrics_of(20.0, **ours)],
        "keras": [metrics_of(10.0, peak_mib=200.0), metrics_of(8.0)],
        "torch": [metrics_of(40.0, versions={"torch": "2.13"}), metrics_of(25.0)],
    }
    metrics = table.summarise(measurements)
    assert metrics["images_per_second"] == 20 and metrics["step_seconds"] == 0.8
    assert (metrics["gflops"], metrics["share_of_limit"]) == (40, 0.4)
    assert (metrics["conv_gflops_limit"], metrics["memory_gb_per_s"]) == (100, 30)
    assert metrics["versions"] == {"numpy": "2", "torch": "2.13"}
    assert metrics["peers"]["keras"]["ratio"] == 1.75 and metrics["peers"]["torch"]["ratio"] == 0.525
    asked = {"experiment": "cityscape_road", "mode": "train", "precision": "float32", "batch_size": 16}
    text = table.render(asked | metrics)
    rates = "(images/s in each turn: 10.0 against 10.0, 20.0 against 8.0)"
    assert f"this code / keras: 1.75, the median over the turns {rates}" in text
    (row,) = (line.split() for line in text.splitlines() if line.startswith("torch"))
    assert row == ["torch", "40.0", "0.4000", "0.5000", "1.00", "100", "3.0"]
    (row,) = (line.split() for line in text.splitlines() if line.startswith("this code  "))
    assert row[2:] == ["20.0", "0.8000", "1.0000", "40.0", "40.0%", "1.00", "100", "3.0"]


def test_the_limits_of_the_machine_are_measured(monkeypatch):
    monkeypatch.setattr(machine, "SIZES", ((4, 32, 32, 32),))
    monkeypatch.setattr(machine, "NUMBERS", 2**20)
    tf.random.set_seed(0)  # other tests enable deterministic ops, which need a seed
    monkeypatch.setattr(measurement, "time_calls", lambda call, seconds, least: (call(), ([0.5], 1.0))[1])
    metrics = machine.measure(types.SimpleNamespace(seconds=0, precision="float32"))
    gflops, bandwidth = 2 * 9 * 32 * 4 * 32**3 / 0.5e9, 3 * 4 * 2**20 / 0.5e9  # half a second per call
    assert metrics["conv_gflops"] == pytest.approx(gflops) and metrics["versions"] == {}
    assert metrics["memory_gb_per_s"] == pytest.approx(bandwidth)


def test_the_command_prints_json_and_a_message_for_a_missing_baseline(monkeypatch, shared_cache, capsys):
    limits = program({"conv_gflops": 100.0, "memory_gb_per_s": 20.0, "versions": {}})
    monkeypatch.setitem(comparison.PROGRAMS, "machine", limits)
    python = shutil.which("false")  # a program that fails, as a Python without PyTorch does
    arguments = [
        *("--experiment=dubai_aerial", "--mode=infer", "--batch_size=1", "--seconds=0", "--turns=1"),
        *("--peers=torch", f"--torch_python={python}", f"--cache_dir={shared_cache}", "--json"),
    ]
    assert comparison.run(cli.parse(comparison.define_flags, arguments)) == 0
    printed = capsys.readouterr()
    assert f"warning: {python} cannot import torch; continuing without torch.\n" in printed.err
    (line,) = printed.out.splitlines()
    metrics = json.loads(line)
    asked = {key: metrics[key] for key in ("experiment", "mode", "precision", "batch_size")}
    assert list(asked.values()) == ["dubai_aerial", "infer", "float32", 1]
    rate = metrics["images_per_second"]
    assert rate == 1 / metrics["step_seconds"] and metrics["turns"] == [rate]
    assert (metrics["conv_gflops_limit"], metrics["memory_gb_per_s"]) == (100, 20)
    assert metrics["peak_mib"] > 100 and metrics["first_step_seconds"] > metrics["step_seconds"]
    assert {"python", "tensorflow", "keras", "numpy"} <= set(metrics["versions"]) and not metrics["peers"]


def program(metrics):
    """Return the arguments with which Python prints a line and then `metrics` as JSON, like a measurement."""
    return ["-c", f"print('noise'); print({json.dumps(metrics)!r})"]


@pytest.fixture
def programs():
    step = metrics_of(8.0, first_step_at=time.time(), parameters=[2, 3], device="CPU")
    return {
        "machine": program({"conv_gflops": 100.0, "memory_gb_per_s": 20.0, "versions": {}}),
        "ours": program({**step, "gflop_per_image": 1.0, "kind": "CPU", "rules": {}}),
        "keras": program(step),
    }


def run_with(monkeypatch, cache, programs, *arguments):
    monkeypatch.setattr(comparison, "PROGRAMS", programs)
    arguments = ["--experiment=dubai_aerial", f"--cache_dir={cache}", *arguments]
    return comparison.run(cli.parse(comparison.define_flags, arguments))


def test_implementations_are_measured_alternately(monkeypatch, shared_cache, programs, capsys):
    order, measure, settings = [], comparison.measure_in_process, {}

    def noted(name, given, python):
        order.append(name)
        settings.update(given)
        return measure(name, given, python)

    monkeypatch.setattr(comparison, "measure_in_process", noted)
    passed = "--precision=bfloat16", "--lowering=off"
    assert not run_with(monkeypatch, shared_cache, programs, "--peers=keras", *passed)
    assert set(passed) <= set(settings["flags"])
    assert order == ["machine", "ours", "keras"] * 3
    assert "this code / keras: 1.00, the median" in capsys.readouterr().out


def test_a_failed_measurement_or_a_different_network_is_an_error(monkeypatch, shared_cache, programs):
    wrong = program({"device": "CPU", "first_step_at": 0.0, "parameters": [2, 4]})
    with pytest.raises(InputError, match="keras has a different number of parameters for dubai_unet"):
        run_with(monkeypatch, shared_cache, programs | {"keras": wrong}, "--peers=keras")
    on_gpu = program({"device": "GPU", "first_step_at": 0.0, "parameters": [2, 3]})
    with pytest.raises(InputError, match="keras computes on GPU, but this code on CPU"):
        run_with(monkeypatch, shared_cache, programs | {"keras": on_gpu}, "--peers=keras")
    fails = programs | {"ours": ["-c", "raise MemoryError('no more')"]}
    with pytest.raises(InputError, match=r"of ours failed \(MemoryError: no more\).*--batch_size"):
        run_with(monkeypatch, shared_cache, fails)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--experiment="], "--experiment: is empty"),
        (["--experiment=road"], "no experiment 'road'"),
        (["--experiment=benchmark"], "no experiment 'benchmark'"),
        (["--mode=fly"], "mode"),
        (["--peers=jax"], "must be among keras, torch"),
        (["--peers=keras", "--mode=input"], "--peers"),
        (["--peers=openvino", "--mode=train"], "openvino only predicts"),
        (["--batch_size=0"], "batch_size"),
        (["--seconds=-1"], "seconds"),
    ],
)
def test_invalid_flags_are_errors(arguments, expected, monkeypatch, shared_cache):
    with pytest.raises(InputError, match=expected):
        run_with(monkeypatch, shared_cache, {}, *arguments)
