"""Evaluation gives the metrics of the training's validation and counts the examples that were trained on."""

import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import decoded, refused
from PIL import Image

import experiments
from core import losses, metrics
from core.data import batches, cache, membership
from core.experiment import IGNORE
from core.inference import render, report, split
from core.inference.evaluate import make_evaluate
from core.runs import checkpoint
from core.runtime import cli
from experiments import evaluate as verb

pytestmark = pytest.mark.usefixtures("small_articles")


def test_metrics_equal_the_metrics_of_the_training(road_run, tmp_path):
    restored = experiments.load(road_run, data=True)
    results, folder = report.evaluate(restored, "val", tmp_path / "out")
    row = checkpoint.load(road_run / "checkpoints/best.npz")[1]["history"][-1]
    trained = {name.removeprefix("val_"): row[name] for name in row if name.startswith("val_")}
    assert trained.keys() == {"loss", "iou", "accuracy", "precision", "recall"}
    assert {name: results[name] for name in trained} == pytest.approx(trained, rel=0, abs=0, nan_ok=True)

    (tmp_path / "one by one/worst.png").mkdir(parents=True)  # makes the first evaluation fail
    with refused("worst.png"):
        report.evaluate(restored, "val", tmp_path / "one by one", batch_size=1)
    (tmp_path / "one by one/worst.png").rmdir()
    one_by_one, _ = report.evaluate(restored, "val", tmp_path / "one by one", batch_size=1)
    assert one_by_one["classes"] == results["classes"] and one_by_one["loss"] == pytest.approx(
        results["loss"]
    )

    written = json.loads((folder / "figures.json").read_text())
    assert written["loss"] == results["loss"]
    facts = written["evaluation"]
    assert facts["data"] == str(road_run.parent / "pairs") and facts["split"] == "val"
    assert facts["checkpoint"] == str(road_run / "checkpoints/best.npz") and facts["epoch"] == row["epoch"]
    assert (facts["examples"], facts["examples_trained_on"]) == (5, 0)
    assert len(facts["code"]) == 16 and facts["code_changed_since_training"] == [] and facts["date"] > "2020"
    with open(folder / "confusion.csv") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [row[0] for row in rows] == ["background", "road"]
    confusion = np.array([row[1:] for row in rows], int)
    assert confusion.sum() == 5 * 32 * 32
    assert results["accuracy"] == np.trace(confusion) / confusion.sum()
    assert results["classes"]["road"]["pixels"] == confusion[1].sum()
    drawn = render.confusion(confusion, ("background", "road"))
    assert Image.open(folder / "confusion.png").size == drawn.size
    assert Image.open(folder / "worst.png").size == (4 * 32, 5 * (32 + render.CAPTION))


def test_the_limit_of_the_run_applies_only_to_its_own_splits(road_run, tmp_path, monkeypatch):
    run, seen = shutil.copytree(road_run, tmp_path / "run"), []
    text = (run / "flags.cfg").read_text()
    (run / "flags.cfg").write_text(text.replace("--limit=0\n", "--limit=2\n"))

    def noted(run, *_, **__):
        seen.append(run.flags.limit)
        return {"classes": {}}, tmp_path

    monkeypatch.setattr(report, "evaluate", noted)
    for more in ([], ["--split=all"], [f"--data_dir={road_run.parent / 'pairs'}"]):
        verb.run(cli.parse(verb.define_flags, [f"--run_dir={run}", *more]))
    assert seen == [2, 0, 0]


def test_a_wrong_data_dir_is_not_blamed_on_flags_cfg(road_run, tmp_path):
    arguments = [f"--run_dir={road_run}", f"--data_dir={tmp_path / 'missing'}"]
    with refused("--data_dir") as caught:
        verb.run(cli.parse(verb.define_flags, arguments))
    assert "flags.cfg" not in str(caught.value)


def test_a_folder_that_another_evaluation_has_just_made_is_not_used(tmp_path):
    run = SimpleNamespace(folder=tmp_path, checkpoint=tmp_path / "checkpoints/best.npz")
    folders = [report._new_folder(run, "val", None) for _ in range(2)]  # both evaluations are still running
    assert folders == [tmp_path / "evaluation/val_best", tmp_path / "evaluation/val_best_2"]
    (folders[0] / "figures.json").touch()
    with refused("take another --output_dir"):
        report._new_folder(run, "val", folders[0])


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """Return a run, and the `Examples` of the ten photos of its data set, which was moved after the training.

    The run was trained on photos 0 to 3 and validated on photos 4 and 5. The replaced `cache.load_split`
    selects photos 0, 4 and 9 for every split.
    """
    photos = np.random.RandomState(0).randint(0, 256, (10, 4, 4, 3)).astype(np.uint8)
    examples = decoded(tmp_path, photos, np.zeros([10, 4, 4], np.uint8), rows=[0, 4, 9])
    examples = dataclasses.replace(examples, files=[("photo.png",)] * 10)
    rows = [dataclasses.replace(examples, rows=np.arange(10)[part]) for part in (slice(4), slice(4, 6))]
    membership.write(tmp_path, *rows)
    monkeypatch.setattr(cache, "load_split", lambda *_: examples)
    dataset = SimpleNamespace(read=lambda files, split: (photos[0], None))
    experiment = SimpleNamespace(name="an experiment", dataset=dataset)
    return SimpleNamespace(folder=tmp_path, flags=SimpleNamespace(limit=0), experiment=experiment), examples


def test_it_is_unknown_how_many_examples_were_trained_on_if_the_splits_are_decoded_differently(moved, capsys):
    run, examples = moved
    run.experiment.dataset.read = lambda files, split: (np.zeros(4 if split == "train" else 2), None)
    assert split.load(run, "all") == (examples, None)
    assert "decodes training photos in another way" in capsys.readouterr().out
    assert split.load(run, "val")[1] == 0  # all these examples are in the run's list of validation photos


def test_moved_data_are_split_as_in_the_training(moved, capsys):
    run, examples = moved
    for name, rows, trained_on in (("val", [4, 5], 0), ("train", [0, 1, 2, 3], 4)):
        found, count = split.load(run, name)
        assert found.rows.tolist() == rows and count == trained_on
    assert "4 of the examples were used neither for training nor for validation" in capsys.readouterr().out
    found, count = split.load(run, "all")
    assert found.rows.tolist() == [0, 4, 9] and count == 1  # the rows that `cache.load_split` selects
    assert "the run was trained on 1 of them" in capsys.readouterr().out


def test_missing_examples_and_other_data_give_a_warning(moved, monkeypatch, capsys):
    run, examples = moved
    fewer = dataclasses.replace(examples, photo_hashes=np.where(np.arange(10) == 5, 1, examples.photo_hashes))
    monkeypatch.setattr(cache, "load_split", lambda *_: fewer)
    assert split.load(run, "val")[0].rows.tolist() == [4]
    assert "warning: 1 of the run's 2 val examples are not in " in capsys.readouterr().out
    other = dataclasses.replace(examples, photo_hashes=np.arange(10))
    monkeypatch.setattr(cache, "load_split", lambda *_: other)
    assert split.load(run, "val")[0].rows.tolist() == [0, 4, 9]
    assert "holds none of the run's val examples" in capsys.readouterr().out
    (run.folder / membership.NAME).unlink()
    assert split.load(run, "val")[1] is None
    assert "has no data_split.npz, which lists the run's images" in capsys.readouterr().out


def test_a_warning_about_missing_examples_names_the_limit_of_the_run(moved, monkeypatch, capsys):
    run, examples = moved
    run.flags.limit = 3
    for hashes in (np.where(np.arange(10) == 5, 1, examples.photo_hashes), np.arange(10)):
        other = dataclasses.replace(examples, photo_hashes=hashes)
        monkeypatch.setattr(cache, "load_split", lambda *_, other=other: other)
        split.load(run, "val")
        printed = capsys.readouterr().out
        assert "Only the first 3 files were searched" in printed and "--data_dir=" in printed


def test_metrics_of_each_class_equal_hand_computed_values():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    experiment = SimpleNamespace(classes=("a", "b", "c"), metrics=lambda confusion: {"own": 0.5})
    results = report.summary(experiment, {"loss": 0.25}, confusion)
    assert results["loss"] == 0.25 and results["own"] == 0.5 and results["accuracy"] == 0.7
    assert results["mean_iou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert results["classes"]["a"] == pytest.approx(
        {"iou": 3 / 6, "dice": 6 / 9, "precision": 3 / 5, "recall": 3 / 4, "pixels": 4}
    )
    np.testing.assert_allclose(metrics.dice(confusion), [6 / 9, 8 / 11, np.nan])


def test_the_ten_images_with_the_most_wrong_pixels_are_chosen(tmp_path):
    wrong = np.array([3, 9, 1, 7, 12, 0, 5, 2, 11, 4, 6, 8])  # wrong pixels of each image
    masks = (np.arange(16) < wrong[:, None]).reshape(12, 4, 4).astype(np.uint8)
    masks[5] = IGNORE
    examples = decoded(tmp_path, np.zeros([12, 4, 4, 3], np.uint8), masks, rows=range(11, -1, -1))
    experiment = SimpleNamespace(
        classes=("a", "b"),
        forward=lambda weights, images, training: tf.one_hot(tf.zeros_like(images[..., 0], tf.int32), 2),
        loss=losses.categorical_cross_entropy,
        measures={},
    )
    _, _, counted = make_evaluate(experiment, {}, tf.float32)(batches.evaluation(examples, 5))
    assert counted.tolist() == wrong[::-1].tolist()
    assert report._worst(examples, counted).tolist() == np.argsort(-wrong)[:10].tolist()


def test_the_command_line_prints_every_class_and_finds_moved_data(road_run, tmp_path, capsys):
    shutil.copytree(road_run.parent / "pairs", tmp_path / "moved")
    shutil.copy(tmp_path / "moved/train/1.jpg", tmp_path / "moved/val/new.jpg")
    arguments = [f"--run_dir={road_run}", f"--data_dir={tmp_path / 'moved'}"]
    for name, line in (("val", "5 val examples from"), ("all", "14 all examples from")):
        output_dir = f"--output_dir={tmp_path / name}"
        flags = cli.parse(verb.define_flags, [*arguments, f"--split={name}", output_dir])
        assert verb.run(flags) == 0
        printed = capsys.readouterr().out
        assert line in printed
        trained_on = {"val": 0, "all": 9}[name]
        assert f"the run was trained on {trained_on} of them" in printed
        lines = {line.split()[0]: line.split() for line in printed.splitlines()}
        pixels = {"val": 5, "all": 14}[name] * 16 * 32
        assert lines["road"][-1] == f"{pixels:,}"
        assert {"loss", "accuracy", "mean_iou", "background"} <= lines.keys()
