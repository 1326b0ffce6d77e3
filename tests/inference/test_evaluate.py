"""Evaluating a checkpoint repeats what its training measured, to the last digit."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import python
from PIL import Image

from core import metrics
from core.inference import render, report, restore
from core.runs import checkpoint
from experiments import article


@pytest.mark.parametrize("name", ["best", "last"])
def test_figures_are_those_of_the_training(road_run, tmp_path, name):
    flags = SimpleNamespace(run_dir=str(road_run), checkpoint=name)
    restored = restore.restore(flags, article, data=True)
    figures = report.evaluate(restored, "val", tmp_path / "out")
    row = checkpoint.load(road_run / "checkpoints" / f"{name}.npz")[1]["history"][-1]
    trained = {name.removeprefix("val_"): row[name] for name in row if name.startswith("val_")}
    assert trained.keys() == {"loss", "iou", "accuracy", "precision", "recall"}
    assert {name: figures[name] for name in trained} == pytest.approx(trained, rel=0, abs=0, nan_ok=True)

    one_by_one = report.evaluate(restored, "val", tmp_path / "one by one", batch_size=1)
    assert one_by_one["classes"] == figures["classes"] and one_by_one["loss"] == pytest.approx(
        figures["loss"]
    )

    written = json.loads((tmp_path / "out/figures.json").read_text())
    assert written["loss"] == figures["loss"]
    with open(tmp_path / "out/confusion.csv") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [row[0] for row in rows] == ["background", "road"]
    confusion = np.array([row[1:] for row in rows], int)
    assert confusion.sum() == 5 * 32 * 32
    assert figures["accuracy"] == np.trace(confusion) / confusion.sum()
    assert figures["classes"]["road"]["pixels"] == confusion[1].sum()
    assert Image.open(tmp_path / "out/worst.png").size == (4 * 32, 5 * (32 + render.CAPTION))


def test_per_class_figures_by_hand():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    experiment = SimpleNamespace(classes=("a", "b", "c"), metrics=lambda confusion: {"own": 0.5})
    figures = report.summary(experiment, {"loss": 0.25}, confusion)
    assert figures["loss"] == 0.25 and figures["own"] == 0.5 and figures["accuracy"] == 0.7
    assert figures["mean_iou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert figures["classes"]["a"] == pytest.approx(
        {"iou": 3 / 6, "dice": 6 / 9, "precision": 3 / 5, "recall": 3 / 4, "pixels": 4}
    )
    np.testing.assert_allclose(metrics.dice(confusion), [6 / 9, 8 / 11, np.nan])


def test_the_picture_of_a_confusion_matrix_is_darkest_where_the_share_is_highest():
    picture = render.confusion(np.array([[90, 10], [50, 50]]), ("one", "another"))
    cells = np.asarray(picture, int)[-72:, -72:, 0].reshape(2, 36, 2, 36)[:, 2, :, 2]
    np.testing.assert_allclose(cells, [[26, 230], [128, 128]], atol=1)


def test_command_line_prints_every_class(road_run, tmp_path):
    done = python(
        "experiments.evaluate",
        f"--run_dir={road_run}",
        "--split=train",
        f"--data_dir={road_run.parent / 'pairs'}",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "8 train images" in done.stdout
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["road"][-1] == f"{8 * 16 * 32:,}"
    assert {"loss", "accuracy", "mean_iou", "background"} <= lines.keys()
