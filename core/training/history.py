"""What the epochs of a training brought: a list of rows, dicts of one epoch's figures.

The keys of a row are the columns of metrics.csv: `epoch`, `step`, `train_loss` (with
the Dice term, if there is one), `val_loss` (without it), `val_NAME` for each other figure
(`val_iou/road`: of one class), `images_per_second`, `seconds`.
"""

import numpy as np

from core.inference import render
from core.runs import run_folder
from core.runtime import device


def best(history, figure):
    """The row with the largest `val_FIGURE`, the first of equals; NaN is the smallest."""
    return max(history, key=lambda row: np.nan_to_num(row[f"val_{figure}"], nan=-1.0))


def stalled(history, patience):
    """Whether the last `patience` epochs, if any, brought no smaller validation loss."""
    losses = np.nan_to_num([row["val_loss"] for row in history], nan=np.inf)
    return 0 < patience < len(losses) and min(losses[:-patience]) <= min(losses[-patience:])


def line(row):
    """One row as text, without the figures of single classes."""
    figures = [
        f"{name} {value:.4f}"
        for name, value in row.items()
        if name.startswith(("train_", "val_")) and "/" not in name
    ]
    return f"{', '.join(figures)} ({row['images_per_second']:.1f} images/s)"


def report(history, folder, experiment, **facts):
    """Write metrics.csv, summary.json (facts in it) and the curves to a run folder; print the result."""
    final, top = history[-1], best(history, experiment.best)
    run_folder.write_metrics(folder, history)
    figures = {"experiment": experiment.name, "final": final, "best": top}
    summary = {**figures, **facts, "versions": device.versions()}
    run_folder.write_json(folder / "summary.json", summary)
    figure = render.curves(history)
    if figure:
        run_folder.write_figure(folder / "curves.png", figure)
    print(f"final, epoch {final['epoch']}: {line(final)}")
    print(f"best, epoch {top['epoch']}: {line(top)}")
    for name, value in top.items():
        if "/" in name:
            print(f"  {name:<30}{value:8.4f}")
    print(f"pictures: {folder / 'predictions'}; figures: {folder / 'metrics.csv'}")
