"""Settings that the articles do not use: averaged weights, half precision, XLA."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import small_road
from test_kill import FORKS

import experiments
from core.inference import report
from core.runs import checkpoint
from core.runtime import cli
from core.training import loop
from core.training.optimizer import init_slots
from core.training.step import Recipe, make_train_step
from experiments import cityscape_road


def test_validation_and_restored_runs_use_the_averaged_weights(small_articles, pairs, tmp_path):
    flags = cli.parse(
        cityscape_road.define_flags,
        [
            f"--data_dir={pairs}",
            f"--run_dir={tmp_path / 'run'}",
            f"--cache_dir={tmp_path / 'cache'}",
            *"--size=32 --batch_size=2 --epochs=2 --ema_decay=0.9".split(),
        ],
    )
    loop.run(cityscape_road.experiment(flags), cityscape_road.define_flags, flags)
    arrays, state = checkpoint.load(tmp_path / "run/checkpoints/last.npz")
    run = experiments.load(tmp_path / "run", "last", data=True)
    for name, weight in run.weights.items():
        np.testing.assert_array_equal(weight, arrays[f"average/{name}"])
        assert np.abs(arrays[f"average/{name}"] - arrays[name]).max() > 1e-5
    metrics, _ = report.evaluate(run, "val", tmp_path / "out")
    assert metrics["loss"] == state["history"][-1]["val_loss"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["final"]["val_loss"] == metrics["loss"]


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_losses_in_half_precision_are_close_to_float32(dtype):
    """In each of 20 steps on the same batch, the loss differs from the float32 loss by at most 10 %."""
    expected, _ = _trained(tf.float32, Recipe(0.01), steps=20)
    found, _ = _trained(dtype, Recipe(0.01), steps=20)
    assert expected[-1] < 0.7 * expected[0] and found != expected
    np.testing.assert_allclose(found, expected, rtol=0.1)


@pytest.mark.parametrize("changes", [{"schedule": "cosine", "steps": 3}, {"warmup_steps": 2}, {"dice": 0.5}])
def test_each_setting_changes_the_losses(changes):
    plain, _ = _trained(tf.float32, Recipe(0.01), steps=20)
    assert _trained(tf.float32, Recipe(0.01, **changes), steps=3)[0] != plain[:3]


def test_a_step_compiled_with_xla_equals_a_step_without_xla(tmp_path):
    """Other tests enable deterministic ops, but XLA has no deterministic gradient of max-pooling.

    The two steps therefore run in a new process, in which deterministic ops are off.
    """
    child = FORKS.Process(target=_compare_with_xla)
    child.start()
    child.join()
    assert child.exitcode == 0


def _compare_with_xla():
    expected, weights = _trained(tf.float32, Recipe(1e-3), steps=5)
    found, compiled = _trained(tf.float32, Recipe(1e-3, xla=True), steps=5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name in weights:
        np.testing.assert_allclose(compiled[name], weights[name], rtol=0.01, atol=1e-4)


@functools.cache
def _trained(dtype, recipe, *, steps):
    """Train a small road network on one batch; return the loss of each step, and the final weights."""
    experiment = small_road()
    images = np.random.RandomState(0).randint(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    weights = experiment.init_weights(seed=0)
    slots = init_slots(weights, dtype)
    step = make_train_step(experiment, weights, slots, {}, dtype, recipe)
    losses = [float(step(images, images[..., 0] // 128, 1.0, [0, number])) for number in range(steps)]
    assert int(slots["adam/step"]) == steps
    return losses, weights
