"""What an evaluation leaves: figures, the confusion matrix, the worst images."""

import csv
import dataclasses
import io

import numpy as np

from core import metrics
from core.data import batches, cache
from core.experiment import IGNORE
from core.inference import render, tiling
from core.inference.evaluate import make_evaluate, make_predict
from core.runs import run_folder
from core.runtime import files

WORST = 10


def evaluate(run, split, output_dir, *, batch_size=None):
    """Evaluate a `restore.Run` on a split, in batches as in training or other; the figures, a dict.

    They are those of the training's validation, by the same names, and `classes`:
    for each its IoU, Dice, precision, recall and pixels. Written to output_dir:
    figures.json; confusion.csv, a row for each true class, and confusion.png;
    worst.png, the images with the most wrong pixels.
    """
    experiment, batch_size = run.experiment, batch_size or run.flags.batch_size
    examples = cache.load_split(experiment.dataset, run.flags, split)
    print(f"{len(examples)} {split} images from {examples.data_dir}")

    multiple = tiling.multiple(experiment.forward, run.weights)
    any_size = dataclasses.replace(experiment, forward=tiling.padded(experiment.forward, multiple))
    means, confusion = make_evaluate(any_size, run.weights, run.dtype)(
        batches.evaluation(examples, batch_size)
    )
    predict = make_predict(any_size, run.weights, run.dtype)
    wrong = [
        np.mean((predict(images) != masks) & (masks != IGNORE), axis=(1, 2))
        for images, masks, _ in batches.evaluation(examples, batch_size)
    ]
    worst = examples.rows[np.argsort(-np.concatenate(wrong), kind="stable")[:WORST]]

    figures = summary(experiment, means, confusion)
    output_dir.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(output_dir / "figures.json", figures)
    files.write_text(output_dir / "confusion.csv", table(confusion, experiment.classes))
    picture = render.confusion(confusion, experiment.classes)
    run_folder.write_picture(output_dir / "confusion.png", picture)
    panel = render.examples_panel(examples, worst, predict, experiment.palette)
    run_folder.write_picture(output_dir / "worst.png", panel)
    return figures


def summary(experiment, means, confusion):
    """All figures of a confusion matrix, under the names that training gives them."""
    each = {
        "iou": metrics.iou(confusion),
        "dice": metrics.dice(confusion),
        "precision": metrics.precision(confusion),
        "recall": metrics.recall(confusion),
    }
    figures = {
        "accuracy": metrics.accuracy(confusion),
        "mean_iou": np.nanmean(each["iou"]),
        **means,
        **experiment.metrics(confusion),
    }
    classes = {
        name: {
            **{figure: float(values[index]) for figure, values in each.items()},
            "pixels": int(confusion[index].sum()),
        }
        for index, name in enumerate(experiment.classes)
    }
    return {name: float(value) for name, value in figures.items()} | {"classes": classes}


def table(confusion, classes):
    """The confusion matrix as CSV: a row for each true class, a column for each predicted."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["truth / prediction", *classes])
    writer.writerows([name, *counts] for name, counts in zip(classes, confusion.tolist()))
    return text.getvalue()
