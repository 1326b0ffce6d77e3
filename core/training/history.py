"""The history of a run: a list of rows. A row is a dict with the metrics of one epoch.

The keys of a row are the columns of metrics.csv:

    epoch              number of finished epochs since the start of the run
    step               number of finished training steps since the start of the run
    train_loss         mean training loss over the epoch; with --dice, it includes the Dice loss
    val_loss           mean validation loss after the epoch; it never includes the Dice loss of --dice. With
                       class weights, it is weighted, so compare it only between runs with equal weights
    val_NAME           the validation metric NAME, such as `val_accuracy`, or `val_iou/road` for one class
    images_per_second  training images per second; the time of validation and checkpoints is not counted
    seconds            time from the end of the loading of the images to the end of the epoch. If the run was
                       interrupted, the time from its last checkpoint to the end of the loading of the images
                       in the continued run is not counted
"""

import numpy as np

from core.inference import render
from core.runs import run_folder
from core.runtime.errors import warn_on_failure


def best(history, metric):
    """Return the row of the best epoch: the first row with the largest `val_METRIC`.

    history: the rows of the run. metric: the name of a metric. If it is "loss", the result is the first row
    with the smallest `val_loss`. NaN counts as worse than any number. If all values are NaN, the result is
    the last row.
    """
    values = np.array([row[f"val_{metric}"] for row in history], np.float64)
    if metric == "loss":
        values = -values
    if np.isnan(values).all():
        return history[-1]
    return history[np.argmax(np.where(np.isnan(values), -np.inf, values))]


def stalled(history, patience):
    """True if the last `patience` epochs have not lowered the smallest validation loss of the run.

    False if patience is 0, or if there are not more than `patience` epochs.
    """
    losses = np.nan_to_num([row["val_loss"] for row in history], nan=np.inf)
    return 0 < patience < len(losses) and min(losses[:-patience]) <= min(losses[-patience:])


def line(row):
    """Format the losses, the metrics and the throughput of a row as text.

    Metrics whose names end in a class name, such as `val_iou/road`, are left out.
    """
    metrics = [
        f"{name} {value:.4f}"
        for name, value in row.items()
        if name.startswith(("train_", "val_")) and "/" not in name
    ]
    return f"{', '.join(metrics)} ({row['images_per_second']:.1f} images/s)"


def report(history, folder, experiment, *, best_metric, **facts):
    """Write summary.json and curves.png to a run folder, and print the last and the best row.

    curves.png is not written if matplotlib is not installed. experiment: the experiment's name. best_metric:
    the metric with which the function `best` chooses the best row. facts: further JSON values for
    summary.json.
    """
    final, top = history[-1], best(history, best_metric)
    summary = {"experiment": experiment, "final": final, "best": top, "best_metric": best_metric}
    run_folder.write_json(folder / "summary.json", {**summary, **facts})
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
