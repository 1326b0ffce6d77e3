"""The training loop: metrics against NumPy, steps against Keras, run folders, failures."""

import dataclasses
import importlib.util
import itertools
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from conftest import small_road
from PIL import Image
from small_networks import small

from core import losses
from core.data import augment, batches, cache
from core.inference import render
from core.models import road_unet
from core.runs import checkpoint, run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import history, loop, optimizer, tensorboard
from core.training.step import Recipe, make_train_step
from experiments import cityscape_road

ROAD = small(road_unet)
SMALL, FORWARD = ROAD["init_weights"], ROAD["forward"]


def test_a_run_folder_holds_metrics_summary_pictures_flags_and_tensorboard_events(
    start, tmp_path, monkeypatch, capsys
):
    monkeypatch.undo()  # draws the curves
    assert start("run", "--tensorboard") == 0
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["final"]["epoch"] == 3 and summary["final"]["step"] == 6
    assert summary["best"]["val_iou"] == np.nanmax([row["val_iou"] for row in run_folder.read_metrics(run)])
    assert summary["parameters"] == sum(int(np.prod(w.shape)) for w in SMALL(seed=0).values())
    assert {"python", "tensorflow", "keras", "numpy"} == summary["versions"].keys()
    assert "CPU" in summary["device"] or "GPU" in summary["device"]
    assert [path.name for path in sorted((run / "predictions").iterdir())] == [
        "epoch_001.png",
        "epoch_002.png",
        "epoch_003.png",
    ]
    assert Image.open(run / "predictions/epoch_003.png").size == (64, 3 * (16 + 18))
    assert (run / "curves.png").exists() and list((run / "tensorboard").glob("events*"))
    assert str(run / "predictions") in capsys.readouterr().out
    repeated = cli.parse(cityscape_road.define_flags, [f"--flagfile={run / 'flags.cfg'}"])
    assert (repeated.size, repeated.batch_size, repeated.epochs) == (16, 4, 3)


def test_validation_metrics_equal_numpy_over_the_whole_set(start, pairs, tmp_path):
    """The three validation images form two batches of sizes 2 and 1."""
    start("run", "--batch_size=2", "--epochs=1", "--learning_rate=0.03")
    flags = cli.parse(cityscape_road.define_flags, ["--size=16"])
    experiment = cityscape_road.experiment(flags)
    arrays, state = checkpoint.load(tmp_path / "run/checkpoints/last.npz")
    weights = SMALL(seed=0)
    checkpoint.restore(weights, {name: arrays[name] for name in weights}, tmp_path)
    val = cache.prepare(experiment.dataset, pairs, "val", tmp_path / "cache")
    z = FORWARD(weights, tf.cast(val.images, tf.float32)).numpy()[..., 0].astype(np.float64)
    truth, found = np.asarray(val.masks) > 0, z > 0
    row = state["history"][0]
    loss = np.where(truth, np.log1p(np.exp(-z)), np.log1p(np.exp(z)))
    assert len(val) == 3
    assert row["val_loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert row["val_accuracy"] == (truth == found).mean()
    assert row["val_iou"] == (truth & found).sum() / (truth | found).sum()
    assert row["val_precision"] == pytest.approx((truth & found).sum() / found.sum())
    assert row["val_recall"] == (truth & found).sum() / truth.sum()


def test_flags_and_experiment_reach_the_training_step(start, tmp_path, monkeypatch):
    seen, seeds, training = {}, [], batches.training

    def init_weights(*, seed):
        seen["seed"] = seed
        return SMALL(seed=seed)

    def forward(weights, images, *, training=False, seed=None):
        assert not training  # the training step is replaced, so only validation and pictures call this
        return FORWARD(weights, images)

    def loss(logits, masks):
        assert logits.dtype == tf.float32
        return losses.binary_cross_entropy(logits, masks)

    def make_step(*arguments):
        seen["slots"], seen["recipe"] = arguments[2], arguments[5]

        def step(*batch):
            clock[0] += 40
            seeds.append(batch[-1].numpy().tolist())
            return float(len(batch[0]))

        return step

    def noted(*arguments, **options):
        seen["changes"] = options["changes"]
        assert options["seed"] == 5
        return training(*arguments, **options)

    monkeypatch.setattr(loop, "make_train_step", make_step)
    monkeypatch.setattr(batches, "training", noted)
    flags = "--schedule=cosine --warmup_steps=1 --weight_decay=0.01 --dice=0.5 --ema_decay=0.9"
    flags += " --precision=float16 --checkpoint_every=1"  # minute
    clock, saved, save = [0.0], [], checkpoint.save
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(checkpoint, "save", lambda *args: saved.append(args[2]["step"]) or save(*args))
    rising = itertools.count()  # the IoU rises in each epoch, the validation loss stays equal
    fields = {"init_weights": init_weights, "augment": (augment.dihedral,)}
    fields |= {"forward": forward, "loss": loss, "metrics": lambda confusion: {"iou": next(rising)}}
    fields["load_weights"] = lambda weights: seen.update(loaded=set(weights))
    start("run", "--seed=5", "--epochs=2", "--augment=flip,zoom", *flags.split(), **fields)
    assert "scaling/factor" in seen["slots"]
    assert seen["loaded"] == set(SMALL(seed=0))
    assert seen["recipe"] == Recipe(1e-3, 1.0, 0.01, "cosine", 1, 4, 0.5, 0.9)
    assert seen["changes"] == [augment.dihedral, augment.flip, augment.zoom] and seen["seed"] == 5
    assert seeds == [[5, step] for step in range(4)]
    # the four images of the first batch have the loss 4, the two images of the last batch the loss 2
    rows = run_folder.read_metrics(tmp_path / "run")
    assert [row["train_loss"] for row in rows] == pytest.approx([20 / 6] * 2)
    # each step takes 40 s, so a minute has passed at the second step of an epoch
    assert saved == [2, 0, 2, 0]
    assert [row["images_per_second"] for row in rows] == pytest.approx([6 / 80] * 2)
    assert checkpoint.load(tmp_path / "run/checkpoints/best.npz")[1]["epoch"] == 2


def test_a_loss_that_is_too_large_ends_the_run(start):
    with pytest.raises(InputError, match=r"the loss .* step . of the run .epoch 1.: the training div"):
        start("run", "--learning_rate=1e6", "--clip_norm=0", "--epochs=50")


def test_weights_that_the_network_does_not_use_are_refused(start):
    def init_weights(*, seed):
        return SMALL(seed=seed) | {"unused": tf.Variable(1.0)}

    with pytest.raises(InputError, match="^unused: no gradient of the loss reaches these weights"):
        start("run", init_weights=init_weights)


def test_weights_that_are_not_finite_are_never_saved(start, tmp_path, monkeypatch):

    def make_poisoned_step(experiment, weights, *args, **options):
        step, calls = make_train_step(experiment, weights, *args, **options), []

        def poisoned(*batch):
            loss = step(*batch)
            calls.append(1)
            if len(calls) == 4:  # the last step of epoch 2, whose loss is still finite
                weights["logit"].assign(np.nan * weights["logit"])
            return loss

        return poisoned

    monkeypatch.setattr(loop, "make_train_step", make_poisoned_step)
    with pytest.raises(InputError, match=r"a variable is NaN, infinite .* step 4 of the run .epoch 2."):
        start("run")
    arrays, state = checkpoint.load_latest(tmp_path / "run/checkpoints")
    assert state["epoch"] == 1 and all(np.isfinite(array).all() for array in arrays.values())


def test_early_stopping_ends_a_run_without_smaller_validation_loss(start, tmp_path, capsys):
    row = [{"val_loss": loss} for loss in (5, 4, 4.5, 4)]
    assert [history.stalled(row[:n], 2) for n in range(5)] == [False, False, False, False, True]
    assert not history.stalled(row, 0) and not history.stalled(row, 3)
    nan, *others = ({"val_loss": loss} for loss in (float("nan"), 4, 5, 6))
    assert history.stalled([nan, *others], 2) and not history.stalled([nan, *others[:1]], 1)
    assert history.stalled([others[0], nan, others[1]], 2) and history.stalled([nan] * 3, 2)
    still = "--epochs=9", "--learning_rate=1e-30", "--early_stopping_patience=2"
    assert start("run", *still) == 0
    assert checkpoint.load_latest(tmp_path / "run/checkpoints")[1]["epoch"] == 3
    # all epochs have the same metrics, so the first epoch is the best
    assert checkpoint.load(tmp_path / "run/checkpoints/best.npz")[1]["epoch"] == 1
    capsys.readouterr()
    assert start("run", *still) == 0
    assert "finished (stopped early, by --early_stopping_patience)" in capsys.readouterr().out


def test_class_ids_outside_the_classes_are_refused(start, pairs):
    dataset = cityscape_road.experiment(cli.parse(cityscape_road.define_flags, ["--size=16"])).dataset

    def read(files, split):
        photos, masks = dataset.read(files, split)
        return photos, np.where(photos[..., 0] > 128, 255, masks).astype(np.uint8)

    ignored = dataclasses.replace(dataset, read=read)
    with pytest.raises(InputError, match=r"class ids \[255\].* 0 to 1"):
        start("run", dataset=ignored)
    assert start("run", "--epochs=1", dataset=ignored, ignore=True) == 0  # 255 is IGNORE


def test_a_step_does_not_retrace_for_the_last_batch(pairs, tmp_path):
    traces = []

    def forward(*args, **options):
        traces.append(1)
        return FORWARD(*args, **options)

    weights = SMALL(seed=0)
    step = make_train_step(
        small_road(forward=forward),
        weights,
        optimizer.init_slots(weights, tf.float32),
        {},
        tf.float32,
        Recipe(1e-3),
    )
    for size in (4, 3, 1):
        step(np.zeros([size, 8, 8, 3], np.uint8), np.zeros([size, 8, 8], np.uint8), 1.0, [0, size])
    assert len(traces) == 1


@pytest.mark.parametrize(
    "clip_norm, weight_decay, dice, schedule", [(0.0, 0.0, 0.0, "constant"), (0.01, 20.0, 0.5, "cosine")]
)
def test_training_steps_equal_keras(clip_norm, weight_decay, dice, schedule):
    """The losses of five steps and the final weights equal those of Keras' loss and AdamW optimizer."""
    experiment = small_road()
    ours, keras = SMALL(seed=0), SMALL(seed=0)
    averages, keras_averages = optimizer.init_averages(ours), optimizer.init_averages(keras)
    rate = tf.keras.optimizers.schedules.CosineDecay(1e-3, 5) if schedule == "cosine" else 1e-3
    adamw = tf.keras.optimizers.AdamW(rate, weight_decay=weight_decay, global_clipnorm=clip_norm or None)
    recipe = Recipe(1e-3, clip_norm, weight_decay, schedule, steps=5, dice=dice, ema_decay=0.9)
    slots = optimizer.init_slots(ours, tf.float32)
    step = make_train_step(experiment, ours, slots, averages, tf.float32, recipe)
    for number in range(5):
        images = np.random.RandomState(number).randint(0, 256, (2, 8, 8, 3)).astype(np.uint8)
        masks = np.random.RandomState(9 + number).randint(0, 2, (2, 8, 8)).astype(np.uint8)
        with tf.GradientTape() as tape:
            logits = FORWARD(keras, tf.cast(images, tf.float32))
            expected = tf.reduce_mean(
                tf.keras.losses.binary_crossentropy(masks[..., None], logits, from_logits=True)
            )
            expected += dice * tf.reduce_mean(losses.dice(logits, masks))
        gradients = tape.gradient(expected, list(keras.values()))
        assert tf.linalg.global_norm(gradients) > 0.01  # so that clip_norm=0.01 scales the gradients
        adamw.apply_gradients(zip(gradients, keras.values()))
        optimizer.update_averages(keras_averages, keras, number + 1, decay=0.9)
        assert float(step(images, masks, 1.0, [0, number])) == pytest.approx(float(expected), rel=1e-5)
    for found, wanted in ((ours, keras), (averages, keras_averages)):
        for name in found:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_tensorboard_needs_its_package_and_a_folder_for_its_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "tensorboard").touch()
    assert tensorboard.writer(tmp_path) is None
    assert "the TensorBoard files in" in capsys.readouterr().out
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        tensorboard.writer(tmp_path)


FAILING = {
    "panel, curves and writer": [
        (render, "examples_panel"),
        (render, "curves"),
        (tf.summary, "create_file_writer"),
    ],
    "events": [(tensorboard, "write")],
}


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING)
def test_a_failed_picture_gives_a_warning_and_keeps_the_epoch(start, tmp_path, monkeypatch, capsys, failing):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "make_train_step", lambda *args, **options: lambda *batch: 1.0)
    for module, name in failing:
        monkeypatch.setattr(module, name, fail)
    assert start("run", "--epochs=1", "--tensorboard") == 0
    told = capsys.readouterr().out
    assert told.count("could not be written (OSError: [Errno 28] No space left on device)") == len(failing)
    assert checkpoint.load(tmp_path / "run/checkpoints/best.npz")[1]["epoch"] == 1
    (row,) = run_folder.read_metrics(tmp_path / "run")
    assert row["epoch"] == 1 and (tmp_path / "run/summary.json").exists()


def test_a_run_can_be_trained_in_a_thread(start):
    """Streamlit trains outside of the main thread. Python can set signal handlers only in the main thread."""
    with ThreadPoolExecutor() as pool:
        assert pool.submit(start, "run", "--epochs=1").result() == 0


def test_without_matplotlib_no_curves_are_drawn(monkeypatch):
    monkeypatch.undo()  # restores `render.curves`
    rows = [{"epoch": 1, "train_loss": 0.5, "val_loss": 0.5, "val_iou": 0.5}]
    assert render.curves(rows) is not None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert render.curves(rows) is None
