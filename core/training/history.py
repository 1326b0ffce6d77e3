"""Per-epoch metrics of a run: a list of rows, one dict per epoch.

The keys of a row are the columns of metrics.csv: `epoch`, `step`, `train_loss` (including the
Dice loss if --dice is given), `val_loss` (without the Dice loss), `val_NAME` for each other metric
(such as `val_iou/road` for one class), `images_per_second` and `seconds`.
"""

import numpy as np

from core.inference import render
from core.runs import run_folder
from core.runtime import device
from core.runtime.errors import warn_on_failure


def best(history, metric):
    """Return the first row with the largest `val_METRIC`; for metric "loss", with the smallest `val_loss`.

    NaN is worse than any number.
    """
    values = np.array([row[f"val_{metric}"] for row in history], np.float64)
    if metric == "loss":
        values = -values
    return history[np.argmax(np.where(np.isnan(values), -np.inf, values))]


def stalled(history, patience):
    """True if patience > 0 and the validation loss has not improved in the last `patience` epochs."""
    losses = np.nan_to_num([row["val_loss"] for row in history], nan=np.inf)
    return 0 < patience < len(losses) and min(losses[:-patience]) <= min(losses[-patience:])


def line(row):
    """Format a row as text, without the metrics of single classes."""
    metrics = [
        f"{name} {value:.4f}"
        for name, value in row.items()
        if name.startswith(("train_", "val_")) and "/" not in name
    ]
    return f"{', '.join(metrics)} ({row['images_per_second']:.1f} images/s)"


def report(history, folder, experiment, *, best_metric, **facts):
    """Write metrics.csv, summary.json and curves.png to a run folder, and print the result.

    experiment: its name. best_metric: as the argument `metric` of `best`. facts: further JSON values for
    summary.json.
    """
    final, top = history[-1], best(history, best_metric)
    run_folder.write_metrics(folder, history)
    summary = {"experiment": experiment, "final": final, "best": top, "best_metric": best_metric}
    run_folder.write_json(folder / "summary.json", {**summary, **facts, "versions": device.versions()})
    with warn_on_failure(f"the picture {folder / 'curves.png'}"):
        figure = render.curves(history)
        if figure:
            run_folder.write_figure(folder / "curves.png", figure)
    print(f"final, epoch {final['epoch']}: {line(final)}")
    print(f"best, epoch {top['epoch']}: {line(top)}")
    for name, value in top.items():
        if "/" in name:
            print(f"  {name:<30}{value:8.4f}")
    print(f"pictures: {folder / 'predictions'}; metrics: {folder / 'metrics.csv'}")
