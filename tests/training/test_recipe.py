"""Settings that the articles do not use: averaged weights, half precision, XLA, experiments/best."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_networks import small
from test_kill import FORKS

import experiments
from core.inference import report, restore
from core.models import road_unet
from core.runs import checkpoint, run_folder
from core.runtime import cli
from core.training import loop
from core.training.optimizer import init_slots
from core.training.step import Recipe, make_train_step
from experiments import article, cityscape_road

BEST = sorted(Path(experiments.__file__).parent.glob("best/*.cfg"))


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
    values = cli.parse(restore.define_flags, [f"--run_dir={tmp_path / 'run'}", "--checkpoint=last"])
    run = restore.restore(values, article, data=True)
    for name, weight in run.weights.items():
        np.testing.assert_array_equal(weight, arrays[f"average/{name}"])
        assert np.abs(arrays[f"average/{name}"] - arrays[name]).max() > 1e-5
    metrics, _ = report.evaluate(run, "val", tmp_path / "out")
    assert metrics["loss"] == state["history"][-1]["val_loss"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["final"]["val_loss"] == metrics["loss"]


SIZES = {
    "cityscape_road": ["--size=32"],
    "oxford_pets": ["--size=32", "--precision=bfloat16"],
    "oxford_pets_mobilenet": ["--size=32", "--encoder_weights=none"],
    "cityscapes_labels": ["--size=32", "--resize=40"],
    "dubai_aerial": ["--patch_size=64", "--split_by=image", "--precision=bfloat16", "--batch_size=64"],
}


@pytest.mark.parametrize("path", BEST, ids=[path.stem for path in BEST])
def test_each_experiment_trains_with_its_best_settings(path, small_articles, shared_cache, tmp_path):
    script, flagfile = article(path.stem), f"--flagfile={path}"
    folders = [f"--run_dir={tmp_path / 'run'}", f"--cache_dir={shared_cache}"]
    arguments = [flagfile, *SIZES[path.stem], *folders, "--limit=6", "--epochs=1"]
    assert experiments.train(script, *arguments) == 0
    (row,) = run_folder.read_metrics(tmp_path / "run")
    assert 0 < row["train_loss"] < 10 and 0 <= row["val_accuracy"] <= 1
    article_flags, better = cli.parse(script.define_flags), cli.parse(script.define_flags, [flagfile])
    changed = {name for name in better if better[name].value != article_flags[name].value}
    assert changed and not changed & {"epochs", "size", "patch_size", "data_dir", "seed", "split_by"}
    if path.stem == "oxford_pets_mobilenet":  # as README says
        assert better.train_encoder


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_losses_in_half_precision_are_close_to_float32(dtype):
    """In each of 20 steps on the same batch, the loss differs from the float32 loss by at most 10 %."""
    expected, _ = _trained(tf.float32, Recipe(0.01), steps=20)
    found, _ = _trained(dtype, Recipe(0.01), steps=20)
    assert expected[-1] < 0.7 * expected[0] and found != expected
    np.testing.assert_allclose(found, expected, rtol=0.1)


@pytest.mark.parametrize("changes", [{"schedule": "cosine", "steps": 3}, {"warmup_steps": 2}, {"dice": 0.5}])
def test_each_setting_changes_the_losses(changes):
    plain, _ = _trained(tf.float32, Recipe(0.01), steps=3)
    assert _trained(tf.float32, Recipe(0.01, **changes), steps=3)[0] != plain


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


def _trained(dtype, recipe, *, steps):
    """Train a small road network on one batch; return the loss of each step, and the final weights."""
    experiment = cityscape_road.experiment(cli.parse(cityscape_road.define_flags))
    experiment = dataclasses.replace(experiment, **small(road_unet))
    images = np.random.RandomState(0).randint(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    weights = experiment.init_weights(seed=0)
    slots = init_slots(weights, dtype)
    step = make_train_step(experiment, weights, slots, {}, dtype, recipe)
    losses = [float(step(images, images[..., 0] // 128, 1.0, [0, number])) for number in range(steps)]
    assert int(slots["adam/step"]) == steps
    return losses, weights
