"""The loop: figures that NumPy confirms, equal runs, exact resumption, clean stops."""

import csv
import dataclasses
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_pair
from PIL import Image
from small_networks import small
from small_training import contents

from core.data import augment, batches, cache
from core.inference import evaluate, render
from core.models import pets_unet, road_unet
from core.runs import checkpoint, run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import history, loop, optimizer, tensorboard
from core.training.step import Recipe, make_train_step
from experiments import cityscape_road

ROAD = small(road_unet)
SMALL, FORWARD = ROAD["init_weights"], ROAD["forward"]


@pytest.fixture
def start(pairs, tmp_path):
    """A function that trains the road experiment, small, in a run folder by name."""

    def start(name, *arguments, init_weights=SMALL, **changes):
        flags = cli.parse(
            cityscape_road.define_flags,
            [
                f"--data_dir={pairs}",
                f"--run_dir={tmp_path / name}",
                f"--cache_dir={tmp_path / 'cache'}",
                "--size=16",
                "--batch_size=4",
                "--epochs=3",
                *arguments,
            ],
        )
        experiment = cityscape_road.experiment(flags)
        experiment = dataclasses.replace(experiment, **ROAD | {"init_weights": init_weights} | changes)
        return loop.run(experiment, cityscape_road.define_flags, flags)

    return start


def test_a_run_folder_holds_what_it_promises(start, tmp_path, capsys):
    assert start("run") == 0
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["final"]["epoch"] == 3 and summary["final"]["step"] == 6
    assert summary["best"]["val_iou"] == max(
        json.loads(cell) for cell in column(run, "val_iou") if cell != "nan"
    )
    assert summary["parameters"] == sum(int(np.prod(w.shape)) for w in SMALL(seed=0).values())
    assert {"python", "tensorflow", "keras", "numpy"} == summary["versions"].keys()
    assert "CPU" in summary["device"] or "GPU" in summary["device"]
    assert [path.name for path in sorted((run / "predictions").iterdir())] == [
        "epoch_001.png",
        "epoch_002.png",
        "epoch_003.png",
    ]
    assert Image.open(run / "predictions/epoch_003.png").size == (64, 3 * (16 + 18))
    assert (run / "curves.png").exists()
    assert str(run / "predictions") in capsys.readouterr().out
    repeated = cli.parse(cityscape_road.define_flags, [f"--flagfile={run / 'flags.cfg'}"])
    assert (repeated.size, repeated.batch_size, repeated.epochs) == (16, 4, 3)


def test_json_has_no_word_for_what_is_not_finite(tmp_path):
    figures = {"final": {"val_loss": float("inf"), "val_iou": float("nan"), "epoch": 1}}
    run_folder.write_json(tmp_path / "figures.json", figures)
    assert json.loads((tmp_path / "figures.json").read_text()) == {
        "final": {"val_loss": None, "val_iou": None, "epoch": 1}
    }


def column(run, name):
    with open(run / "metrics.csv") as file:
        return [row[name] for row in csv.DictReader(file)]


def test_validation_figures_are_those_of_numpy_over_the_whole_set(start, pairs, tmp_path):
    """Three images in batches of two: the last batch is partial."""
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


def test_evaluation_does_not_depend_on_the_batch_size(start, pairs, tmp_path):
    experiment = dataclasses.replace(
        cityscape_road.experiment(cli.parse(cityscape_road.define_flags, ["--size=16"])), **ROAD
    )
    measured = evaluate.make_evaluate(experiment, SMALL(seed=3), tf.float32)
    examples = cache.prepare(experiment.dataset, pairs, "train", tmp_path / "cache")
    one, all_at_once = (measured(batches.evaluation(examples, size)) for size in (4, 6))
    assert one[0]["loss"] == pytest.approx(all_at_once[0]["loss"], rel=1e-6)
    np.testing.assert_array_equal(one[1], all_at_once[1])
    assert one[1].sum() == 6 * 16 * 16


def test_two_runs_with_one_seed_are_equal_bit_for_bit(start, tmp_path):
    for name, *arguments in (("a",), ("b",), ("c", "--seed=1")):
        start(name, *arguments)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["last"] != contents(tmp_path / "c")["last"]


def pets(**changes):
    """Dropout and flips in the place of the road network, which has neither."""

    return {**small(pets_unet, classes=1), "augment": (augment.flip,)}


BETTER = (
    "--schedule=cosine",
    "--warmup_steps=2",
    "--weight_decay=0.01",
    "--dice=0.5",
    "--ema_decay=0.9",
    "--augment=flip,dihedral,zoom,colour",
)


@pytest.mark.parametrize(
    "network, flags, own",
    [(dict, (), ()), (pets, (), ()), (dict, BETTER, ()), (dict, BETTER, ("--data_on_device",))],
    ids=["road", "dropout and flips", "the better settings", "the data on the device"],
)
def test_a_run_stopped_at_any_step_goes_on_as_if_it_never_had(
    start, tmp_path, network, flags, own, monkeypatch
):
    start("unbroken", *flags, **network())
    calls = []

    def make_interrupted_step(*args, **options):
        step = make_train_step(*args, **options)

        def interrupted(*batch):
            calls.append(1)
            if len(calls) in (1, 4):  # in the first step, and in the middle of epoch 2
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*batch)

        return interrupted

    monkeypatch.setattr(loop, "make_train_step", make_interrupted_step)
    codes = [start("broken", *flags, *own, **network()) for _ in range(3)]
    assert codes == [143, 143, 0]
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "broken")


def test_a_stop_during_validation_is_as_clean(start, tmp_path, monkeypatch):
    start("unbroken")
    make_evaluate = evaluate.make_evaluate
    calls = []

    def make_interrupted(*args):
        measured = make_evaluate(*args)

        def interrupted(val_batches):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return measured(val_batches)

        return interrupted

    monkeypatch.setattr(loop, "make_evaluate", make_interrupted)
    assert [start("broken"), start("broken")] == [130, 0]
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "broken")


def test_a_finished_run_is_shown_and_left_alone(start, tmp_path, capsys):
    start("run")
    before = contents(tmp_path / "run")
    capsys.readouterr()
    assert start("run") == 0
    shown = capsys.readouterr().out
    assert "finished" in shown and "val_iou" in shown
    assert contents(tmp_path / "run") == before


def test_other_settings_on_the_same_folder_are_named_and_refused(start, tmp_path):
    start("run")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=r"--batch_size .*--road_tolerance"):
        start("run", "--batch_size=3", "--road_tolerance=20")
    assert contents(tmp_path / "run") == before
    assert start("run", "--checkpoint_every=1") == 0  # changes no result


def test_more_epochs_equal_a_run_begun_with_them_bit_for_bit(start, tmp_path):
    start("unbroken", "--epochs=3")
    start("longer", "--epochs=1")
    assert start("longer", "--epochs=3", "--data_on_device") == 0
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "longer")
    assert "--epochs=3\n" in (tmp_path / "longer/flags.cfg").read_text()
    with pytest.raises(InputError, match="--epochs=2: .* has been trained for 3 epochs"):
        start("longer", "--epochs=2")
    assert "--epochs=3\n" in (tmp_path / "longer/flags.cfg").read_text()


def test_more_epochs_are_refused_where_the_learning_rate_falls(start, tmp_path):
    start("run", "--epochs=1", "--schedule=cosine")
    with pytest.raises(InputError, match="learning rate of each step depends .* --init_from="):
        start("run", "--epochs=2", "--schedule=cosine")


def test_a_data_set_may_move(start, pairs, tmp_path, monkeypatch):
    stop_at_first_step(monkeypatch)
    assert start("run") == 143
    monkeypatch.undo()
    moved = pairs.rename(tmp_path / "moved")
    assert start("run", f"--data_dir={moved}") == 0


def test_a_run_folder_is_for_one_process_at_a_time(start, tmp_path):
    start("run")
    with open(tmp_path / "run" / ".lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            start("run")


def test_a_loss_that_explodes_stops_the_run(start):
    with pytest.raises(InputError, match="the loss .* step . of epoch 1: the training diverged"):
        start("run", "--learning_rate=1e6", "--clip_norm=0", "--epochs=50")


def test_weights_that_are_not_finite_are_never_saved(start, tmp_path, monkeypatch):

    def make_poisoned_step(experiment, weights, *args, **options):
        step, calls = make_train_step(experiment, weights, *args, **options), []

        def poisoned(*batch):
            loss = step(*batch)
            calls.append(1)
            if len(calls) == 4:  # the last step of epoch 2: its loss is that from before
                weights["logit"].assign(np.nan * weights["logit"])
            return loss

        return poisoned

    monkeypatch.setattr(loop, "make_train_step", make_poisoned_step)
    with pytest.raises(InputError, match="a weight is not finite"):
        start("run")
    arrays, state = checkpoint.load_latest(tmp_path / "run/checkpoints")
    assert state["epoch"] == 1 and all(np.isfinite(array).all() for array in arrays.values())


def test_a_run_ends_early_when_validation_no_longer_improves(start, tmp_path, capsys):
    row = [{"val_loss": loss} for loss in (5, 4, 4.5, 4)]
    assert [history.stalled(row[:n], 2) for n in range(5)] == [False, False, False, False, True]
    assert not history.stalled(row, 0) and not history.stalled(row, 3)
    nan, *others = ({"val_loss": loss} for loss in (float("nan"), 4, 5, 6))
    assert history.stalled([nan, *others], 2) and not history.stalled([nan, *others[:1]], 1)
    assert history.stalled([others[0], nan, others[1]], 2) and history.stalled([nan] * 3, 2)
    still = "--learning_rate=1e-30", "--early_stopping_patience=2"
    assert start("run", *still) == 0
    assert checkpoint.load_latest(tmp_path / "run/checkpoints")[1]["epoch"] == 3
    assert start("longer", "--epochs=9", *still) == 0
    assert checkpoint.load_latest(tmp_path / "longer/checkpoints")[1]["epoch"] == 3
    capsys.readouterr()
    assert start("longer", "--epochs=9", *still) == 0
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    "victim, epochs", [("savez", 3), ("fsync", 3), ("write_metrics", 3), ("keep", 3), ("keep", 1)]
)
def test_a_run_killed_around_a_save_goes_on_as_if_it_never_had(start, tmp_path, monkeypatch, victim, epochs):
    """Dies at the third call: in the archive, before its rename, after it. Saves at every step.

    The third that is kept, after two that were the last, is the best; of one epoch, in a finished run.
    """
    start("unbroken", f"--epochs={epochs}")
    monkeypatch.setattr(loop, "LOSS_SYNC_SECONDS", -1)

    class Killed(BaseException):
        pass

    module = {"savez": np, "fsync": os, "write_metrics": run_folder, "keep": checkpoint}[victim]
    whole, calls = getattr(module, victim), []

    def dying(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return whole(*args, **options)

    monkeypatch.setattr(module, victim, dying)
    with pytest.raises(Killed):
        start("broken", "--checkpoint_every=0", f"--epochs={epochs}")
    assert start("broken", "--checkpoint_every=0", f"--epochs={epochs}") == 0
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "broken")
    best = [checkpoint.load(tmp_path / name / "checkpoints/best.npz")[1] for name in ("unbroken", "broken")]
    assert best[0]["epoch"] == best[1]["epoch"]


def stop_at_first_step(monkeypatch):
    def interrupted(*batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    monkeypatch.setattr(loop, "make_train_step", lambda *args, **options: interrupted)


def test_another_set_of_files_is_refused_before_decoding(start, pairs, monkeypatch, capsys):
    stop_at_first_step(monkeypatch)
    assert start("run") == 143
    other = shutil.copytree(pairs, pairs.with_name("other"))
    write_pair(other / "train" / "7.jpg", seed=9)
    capsys.readouterr()
    message = "trained on 6 training and 3 validation files in .*/pairs, but .*/other has other files"
    with pytest.raises(InputError, match=message):
        start("run", f"--data_dir={other}")
    assert "decoding" not in capsys.readouterr().out


def test_a_finished_run_refuses_a_changed_image(start, pairs):
    start("run", "--epochs=1")
    write_pair(pairs / "val" / "1.jpg", seed=9)
    with pytest.raises(InputError, match="but the images in .* differ;"):
        start("run", "--epochs=1")


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
    experiment = dataclasses.replace(
        cityscape_road.experiment(cli.parse(cityscape_road.define_flags, [])), **ROAD
    )
    traces = []

    def forward(*args, **options):
        traces.append(1)
        return FORWARD(*args, **options)

    weights = SMALL(seed=0)
    counted = dataclasses.replace(experiment, forward=forward)
    step = make_train_step(
        counted, weights, optimizer.init_slots(weights, tf.float32), {}, tf.float32, Recipe(1e-3)
    )
    for size in (4, 3, 1):
        step(np.zeros([size, 8, 8, 3], np.uint8), np.zeros([size, 8, 8], np.uint8), 1.0, [0, size])
    assert len(traces) == 1


@pytest.mark.parametrize("clip_norm, weight_decay", [(0.0, 0.0), (0.01, 0.0), (0.01, 20.0)])
def test_steps_of_training_equal_keras(clip_norm, weight_decay):
    """Loss and weights of five steps, with Keras' loss and optimizer on the same network."""
    experiment = dataclasses.replace(
        cityscape_road.experiment(cli.parse(cityscape_road.define_flags, [])), **ROAD
    )
    ours, keras = SMALL(seed=0), SMALL(seed=0)
    adamw = tf.keras.optimizers.AdamW(1e-3, weight_decay=weight_decay, global_clipnorm=clip_norm or None)
    recipe = Recipe(1e-3, clip_norm, weight_decay)
    step = make_train_step(experiment, ours, optimizer.init_slots(ours, tf.float32), {}, tf.float32, recipe)
    for number in range(5):
        images = np.random.RandomState(number).randint(0, 256, (2, 8, 8, 3)).astype(np.uint8)
        masks = np.random.RandomState(9 + number).randint(0, 2, (2, 8, 8)).astype(np.uint8)
        with tf.GradientTape() as tape:
            logits = FORWARD(keras, tf.cast(images, tf.float32))
            expected = tf.reduce_mean(
                tf.keras.losses.binary_crossentropy(masks[..., None], logits, from_logits=True)
            )
        gradients = tape.gradient(expected, list(keras.values()))
        assert tf.linalg.global_norm(gradients) > 0.01  # so that 0.01 does clip
        adamw.apply_gradients(zip(gradients, keras.values()))
        assert float(step(images, masks, 1.0, [0, number])) == pytest.approx(float(expected), rel=1e-5)
    for name in ours:
        np.testing.assert_allclose(ours[name], keras[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda train: (train / "4.jpg").write_bytes(b""), "4.jpg: not a readable image"),
        (lambda train: Image.new("RGB", (64, 64)).save(train / "4.jpg"), "64x64 is not a pair"),
        (lambda train: [path.unlink() for path in train.iterdir()], "no pairs"),
        (lambda train: [write_pair(path, road=(128, 128, 0)) for path in train.iterdir()], "--road_rgb"),
    ],
    ids=["empty file", "no colours", "no files", "no road"],
)
def test_bad_data_is_named_with_its_cure(start, pairs, damage, expected):
    damage(pairs / "train")
    with pytest.raises(InputError, match=expected):
        start("run")


def test_tensorboard_writes_or_says_how_to_install_it(start, tmp_path, monkeypatch):
    start("run", "--tensorboard", "--epochs=1")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        start("other", "--tensorboard", "--epochs=1")


@pytest.mark.parametrize(
    "module, failing", [(render, "examples_panel"), (render, "curves"), (tensorboard, "write")]
)
def test_a_picture_that_fails_is_a_warning_and_costs_no_epoch(
    start, tmp_path, monkeypatch, capsys, module, failing
):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, failing, fail)
    assert start("run", "--epochs=1", "--tensorboard") == 0
    assert "could not be made (OSError: [Errno 28] No space left on device)" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "run/checkpoints/best.npz")[1]["epoch"] == 1
    assert column(tmp_path / "run", "epoch") == ["1"] and (tmp_path / "run/summary.json").exists()


def test_a_run_can_be_trained_in_a_thread(start):
    """Python lets only the main thread handle signals; Streamlit and some notebooks train in another."""
    with ThreadPoolExecutor() as pool:
        assert pool.submit(start, "run", "--epochs=1").result() == 0


def test_curves_are_left_out_without_matplotlib(start, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert start("run", "--epochs=1") == 0
    assert not (tmp_path / "run" / "curves.png").exists()
