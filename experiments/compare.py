"""Compare the flags, images, code, metrics and curves of runs; test whether differences may be chance.

Run: python -m experiments.compare runs/a runs/b
     python -m experiments.compare --group runs/a_seed0 runs/a_seed1 runs/b_seed0 runs/b_seed1

For two runs without --group, a line is printed for the validation loss and for each metric that is computed
from the confusion matrix. Four things are left out: metrics of one class, such as iou/road; the number of
classes in a mean (classes_averaged); metrics that are NaN; and the loss, if the loss functions, the class
weights, core/losses.py or the experiment's script differ. The line shows the value of the second run minus
the value of the first run, with a 95 % interval. Both values belong to the last epoch of their run. The
interval comes from a paired bootstrap over the photos of the validation images that both runs have: the
patches of a photo are drawn together. The interval accounts for the choice of the photos, but not for the
choice of the seed. To learn whether an edit changed a metric, train with several seeds before the edit and
with several seeds after the edit, and use --group.

With --group, runs form a group if they have the same experiment, code and images, and the same values of all
flags that affect the result, except --seed. The runs of a group must have different seeds. For each group,
the mean and the standard deviation of each metric are printed. For two groups of at least two runs each, the
difference between the two means is printed too, with Welch's 95 % interval.

If matplotlib is installed, the curves of all runs are drawn to the file curves.png in the folder
--output_dir.
"""

from pathlib import Path

import numpy as np
from absl import flags

from core.inference import comparison, render, uncertainty
from core.metrics import is_metric
from core.runs import code_digest, run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article


def define_flags(values):
    """Define the flags --group, --output_dir and --resamples."""
    own = {"flag_values": values}
    group = "Compare groups of runs; the runs of a group differ only in --seed."
    flags.DEFINE_bool("group", False, group, **own)
    flags.DEFINE_string("output_dir", "comparison", "Folder for the file curves.png.", **own)
    samples = "Number of bootstrap samples of the validation photos."
    flags.DEFINE_integer("resamples", 2000, samples, 100, 10**6, **own)


def run(flags, arguments):
    """Print the comparison of two or more runs, and draw their curves; return 0.

    arguments: the run folders. Raises InputError for fewer than two folders, for a folder that is not a run
    folder, and for a run that has not finished an epoch. With --group, also raises InputError for two runs of
    a group with the same seed.
    """
    if len(arguments) < 2:
        raise InputError("name the folders of two or more runs to compare.")
    runs = [comparison.load(Path(folder), str(n), article) for n, folder in enumerate(arguments, 1)]
    groups = comparison.grouped(runs) if flags.group else []
    for group in groups:
        refuse_repeated_seeds(group)
    for each in runs:
        print(f"run {each.label}: {each.folder}, {each.experiment.name}, {len(each.history)} epochs")
    if len({len(each.history) for each in runs}) > 1:
        print("warning: the runs have different numbers of epochs; their last epochs are compared anyway.")
    print_table("flags and images that differ", comparison.differences(runs), runs)
    print_code(runs)
    print_table("metrics after the last epoch (in the best epoch)", metric_rows(runs), runs)
    if groups:
        print_groups(groups)
    elif len(runs) == 2:
        print_difference(*runs, resamples=flags.resamples)
    draw(runs, Path(flags.output_dir))
    return 0


def refuse_repeated_seeds(group):
    """Raise InputError if two runs of a group have the same seed, because such runs are not independent.

    group: list of `comparison.Run` that differ only in --seed.
    """
    by_seed = {}
    for run in group:
        seed = run.settings["seed"]
        first = by_seed.setdefault(seed, run)
        if first is not run:
            raise InputError(
                f"{first.folder} and {run.folder} have the same flags, images, code and --seed={seed}, so"
                " they are not independent runs; leave one of them out."
            )


def draw(runs, output_dir):
    """Draw the losses and one metric of all runs over the epochs to output_dir/curves.png.

    runs: list of `comparison.Run`. If matplotlib is missing, a message is printed instead.
    """
    histories = {f"{run.label}: {run.folder.name}": run.history for run in runs}
    figure = render.compared_curves(histories, shown_metric(runs))
    if not figure:
        print("\nno curves: matplotlib is missing; install it with pip install matplotlib")
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    run_folder.write_figure(output_dir / "curves.png", figure)
    print(f"\ncurves: {output_dir / 'curves.png'}")


def metric_rows(runs):
    """Return a dict: metric -> list of texts, one per run, such as "0.8123 (0.8254)".

    The first number is the metric after the run's last epoch. The second number is the metric after the
    epoch of the run's best checkpoint. The text is "-" if the run lacks the metric. runs: list of
    `comparison.Run`.
    """
    return {
        name: [f"{run.final[name]:.4f} ({run.best[name]:.4f})" if name in run.final else "-" for run in runs]
        for name in metric_names(runs)
    }


def metric_names(runs):
    """Return a list of the metrics' names that at least one run has. runs: list of `comparison.Run`."""
    return list(dict.fromkeys(name for run in runs for name in run.final if is_metric(name)))


def shown_metric(runs):
    """Return the column of metrics.csv that is drawn in addition to the losses.

    This is the metric that chooses the best checkpoint of the first run. If a run lacks this column,
    "val_accuracy" is returned. If a run lacks "val_accuracy" too, "val_loss" is returned.
    """
    columns = f"val_{runs[0].experiment.best}", "val_accuracy", "val_loss"
    return next(column for column in columns if all(column in run.final for run in runs))


def print_table(title, rows, runs):
    """Print a title and a table with one column per run. Without rows, print "none" instead of the table.

    rows: name of a row -> list of texts, one per run. runs: list of `comparison.Run`.
    """
    print(f"\n{title}" + ("" if rows else ": none"))
    if not rows:
        return
    table = {"": [f"run {run.label}" for run in runs], **rows}
    first = max(map(len, table))
    widths = [max(map(len, column)) for column in zip(*table.values())]
    for name, values in table.items():
        print(
            "  ".join([f"  {name:<{first}}", *(f"{value:>{width}}" for value, width in zip(values, widths))])
        )


def print_code(runs):
    """Print, for each run after the first one, the files whose code differs from the first run's code.

    If code.json is missing in one of the two run folders, or if the code of a run changed during its
    training, a message says so. runs: list of `comparison.Run`.
    """
    lines = [
        f"  run {run.label}: its code changed during the training; the last version is compared"
        for run in runs
        if len(run.codes) > 1
    ]
    for each in runs[1:]:
        missing = [run.label for run in (runs[0], each) if not run.code]
        changed = code_digest.changed_files(runs[0].code, each.code)
        if missing:
            lines.append(f"  run {each.label}: unknown, because run {missing[0]} has no code.json")
        elif changed:
            lines.append(f"  run {each.label}: {', '.join(changed)}")
    print("\nfiles whose code differs from run 1" + ("" if lines else ": none"), *lines, sep="\n")


def print_difference(a, b, *, resamples):
    """Print the value of run b minus the value of run a, with a bootstrap interval, for loss and metrics.

    a, b: `comparison.Run`. resamples: the number of bootstrap samples. If the runs cannot be compared, the
    reason is printed instead.
    """
    try:
        differences, images, clusters = comparison.bootstrap(a, b, resamples)
    except InputError as error:
        print(f"\nno bootstrap: {error}")
        return
    print(
        f"\nrun {b.label} minus run {a.label}, on {images} validation images from {clusters} files, with 95 %"
        " intervals"
    )
    for name, (difference, low, high) in differences.items():
        print(f"  {name:<14}{difference:+.4f}  [{low:+.4f}, {high:+.4f}]  {verdict(low, high)}")
    print(
        "  The intervals account for the choice of photos. A different seed alone also changes the metrics:\n"
        "  to learn whether flags or code changed them, train several seeds of each version and use --group."
    )


def print_groups(groups):
    """Print the mean and the standard deviation of each metric over the runs of each group.

    If there are two groups and each has at least two runs, also print, for each metric, the difference
    between the means of the two groups, with Welch's 95 % interval, except for metrics that do not mean the
    same in both groups (`comparison.comparable`). groups: list of groups, each a list of `comparison.Run`.
    """
    print("\ngroups: mean +- standard deviation over the seeds, after the last epoch")
    for number, group in enumerate(groups, 1):
        seeds = ", ".join(str(run.settings["seed"]) for run in group)
        labels = ", ".join(run.label for run in group)
        print(f"  group {number}: runs {labels}; n = {len(group)}, seeds {seeds}")
    for name in metric_names([run for group in groups for run in group]):
        samples = [[run.final[name] for run in group if name in run.final] for group in groups]
        cells = [summary(sample) for sample in samples]
        if len(samples) == 2 and not comparison.comparable(name, groups[0][0], groups[1][0]):
            cells.append("not comparable")
        elif len(samples) == 2 and min(map(len, samples)) > 1:
            difference, low, high = uncertainty.welch(*samples)
            interval = f"2 - 1: {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
            cells.append(f"{interval}  {verdict(low, high)}")
        print("  ".join([f"  {name:<16}", *cells]))


def summary(sample):
    """Return a text with the mean, the standard deviation and the length of a list of numbers.

    A single number has no standard deviation. The text is "-" if the list is empty.
    """
    if not sample:
        return "-"
    deviation = f" +- {np.std(sample, ddof=1):.4f}" if len(sample) > 1 else ""
    return f"{np.mean(sample):.4f}{deviation} (n = {len(sample)})"


def verdict(low, high):
    """Return "differs" if the interval from low to high excludes 0, otherwise "may be chance".

    Returns "undefined" if an end of the interval is NaN, which happens if the metric of a run is NaN.
    """
    if np.isnan(low) or np.isnan(high):
        return "undefined"
    return "differs" if low > 0 or high < 0 else "may be chance"


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
