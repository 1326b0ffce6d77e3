"""Evaluate a trained run and write the results to a folder.

figures.json    all metrics, and a description of the evaluation: data, split, checkpoint, code and date
confusion.csv   the confusion matrix in pixels, with one row per true class
confusion.png   a drawing of the confusion matrix
worst.png       photo, truth, prediction and errors of the images with the most wrong pixels
"""

import contextlib
import csv
import dataclasses
import datetime
import io
import itertools
import math
import os

import numpy as np

from core import metrics
from core.data import batches
from core.inference import render, tiling
from core.inference import split as splits
from core.inference.evaluate import make_evaluate, make_predict
from core.runs import code_digest, run_folder
from core.runtime import files, progress
from core.runtime.errors import InputError

WORST = 10  # number of images in worst.png


def evaluate(run, split, output_dir=None, *, batch_size=None):
    """Evaluate a run on a split of its data; return (results, path of the folder with the result files).

    run: `restore.Run`. split: "train", "val" or "all".
    output_dir: the folder for the result files. It may exist, but must not contain a figures.json. None: a
    new folder in the run folder. batch_size: the batch size; None: the batch size of the training.
    results: the content of figures.json, a dict. It holds the metrics from `summary` and, under the key
    "evaluation", the description from `_facts`.
    Raises InputError if output_dir contains a figures.json or cannot be written.
    """
    experiment, batch_size = run.experiment, batch_size or run.flags.batch_size
    code = code_digest.current(experiment)  # before the evaluation, because files may be edited meanwhile
    output_dir = _new_folder(run, split, output_dir)
    examples, trained_on = splits.load(run, split)
    # The training photos of cityscapes_labels have 280x280 pixels before they are cropped at random. The
    # sides of its network's input must be multiples of 16, so photos are padded.
    multiple = tiling.multiple(experiment.forward, run.weights)
    any_size = dataclasses.replace(experiment, forward=tiling.padded(experiment.forward, multiple))
    steps = math.ceil(len(examples) / batch_size)
    tracked = progress.track(batches.evaluation(examples, batch_size), steps, "evaluation step")
    means, confusion, wrong = make_evaluate(any_size, run.weights, run.dtype)(tracked)
    worst = _worst(examples, wrong)
    results = {
        "evaluation": _facts(run, split, examples, trained_on, code),
        **summary(experiment, means, confusion),
    }
    files.write_text(output_dir / "confusion.csv", table(confusion, experiment.classes))
    picture = render.confusion(confusion, experiment.classes)
    run_folder.write_picture(output_dir / "confusion.png", picture)
    predict = make_predict(any_size, run.weights, run.dtype)
    panel = render.examples_panel(examples, worst, predict, experiment.palette)
    run_folder.write_picture(output_dir / "worst.png", panel)
    # figures.json marks a complete evaluation, see `_new_folder`, so it is written last.
    run_folder.write_json(output_dir / "figures.json", results)
    return results, output_dir


def _new_folder(run, split, output_dir):
    """Create the folder for the result files of an evaluation, and return the path of this folder.

    The folder is output_dir. If output_dir is None, the folder is a new folder in the run folder, such as
    evaluation/val_best or evaluation/val_best_2. Evaluations that run at the same time get different folders.
    An evaluation that fails leaves its folder, so the next evaluation gets the next number.
    Raises InputError if output_dir contains a figures.json from an earlier evaluation, or cannot be written.
    """
    if output_dir:
        if (output_dir / "figures.json").exists():
            raise InputError(f"{output_dir}: holds the results of an evaluation; take another --output_dir.")
        with files.writing(output_dir):
            output_dir.mkdir(parents=True, exist_ok=True)
        return output_dir
    parent, name = run.folder / "evaluation", f"{split}_{run.checkpoint.stem}"
    with files.writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = parent / (name if number == 1 else f"{name}_{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder


def _facts(run, split, examples, trained_on, code):
    """Return the description of an evaluation that figures.json holds, as a dict.

    run: `restore.Run`. split: the name of the split. examples: the evaluated `core.data.cache.Examples`.
    trained_on: the number of these examples that the run was trained on; None if this number is unknown.
    code: the result of `code_digest.current`.
    """
    trained = code_digest.read(run.folder)
    return {
        "experiment": run.experiment.name,
        "data": os.path.abspath(examples.data_dir),
        "split": split,
        "examples": len(examples),
        "examples_trained_on": trained_on,
        "checkpoint": os.path.abspath(run.checkpoint),
        "epoch": run.epoch,
        "code": code_digest.combined(code),
        "code_changed_since_training": code_digest.changed_files(trained[-1]["files"], code)
        if trained
        else None,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _worst(examples, wrong):
    """Return the indices, in examples.images, of the examples with the most wrong pixels.

    Returns at most WORST indices: int64, sorted by the number of wrong pixels, largest first.
    examples: `core.data.cache.Examples`. wrong: int64 [N], the number of wrong pixels of each example.
    """
    return examples.rows[np.argsort(-wrong, kind="stable")[:WORST]]


def summary(experiment, means, confusion):
    """Return all metrics of an evaluation as a dict: name -> float, and "classes" -> a dict.

    The loss and the experiment's metrics have the names of their columns in metrics.csv, without "val_".
    `accuracy` and `mean_iou` are added if the experiment does not report them. The value of "classes" is a
    dict: class name -> dict with the keys "iou", "dice", "precision", "recall" and "pixels". "pixels" is the
    number of pixels whose true class is this class.
    means, confusion: as the function from `core.inference.evaluate.make_evaluate` returns them.
    """
    of_classes = {
        "iou": metrics.iou(confusion),
        "dice": metrics.dice(confusion),
        "precision": metrics.precision(confusion),
        "recall": metrics.recall(confusion),
    }
    totals = {
        "accuracy": metrics.accuracy(confusion),
        "mean_iou": metrics.mean_over_classes(of_classes["iou"]),
        **means,
        **experiment.metrics(confusion),
    }
    classes = {
        name: {
            **{metric: float(values[index]) for metric, values in of_classes.items()},
            "pixels": int(confusion[index].sum()),
        }
        for index, name in enumerate(experiment.classes)
    }
    return {name: float(value) for name, value in totals.items()} | {"classes": classes}


def table(confusion, classes):
    """Format a confusion matrix as CSV text, with a row per true class and a column per predicted class.

    confusion: int [classes, classes], pixel counts. classes: the names of the classes.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["truth / prediction", *classes])
    writer.writerows([name, *counts] for name, counts in zip(classes, confusion.tolist()))
    return text.getvalue()
