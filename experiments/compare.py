"""Compare runs: flags, code, metrics and curves, and whether two runs differ by more than chance.

Run: python -m experiments.compare runs/a runs/b
     python -m experiments.compare --group runs/a_seed0 runs/a_seed1 runs/b_seed0 runs/b_seed1

For two runs, prints the difference of their metrics on the validation images after the last epoch,
with a 95 % interval from a paired bootstrap over the images. The interval does not cover the choice of
the seed: to learn whether an edit made a difference, train several seeds of each version and use --group.
With --group, runs that differ only in --seed form a group. Prints the mean and standard deviation of
each group and, for two groups, the difference of the means with Welch's 95 % interval.
The curves of all runs are written to curves.png in --output_dir, if matplotlib is installed.
"""

from pathlib import Path

import numpy as np
from absl import flags

from core.inference import comparison, render, uncertainty
from core.inference.comparison import is_metric
from core.runs import code_digest, run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article


def define_flags(values):
    """Define the flags of this command."""
    flags.DEFINE_bool("group", False, "Group runs that differ only in --seed.", flag_values=values)
    flags.DEFINE_string("output_dir", "comparison", "Folder for curves.png.", flag_values=values)
    flags.DEFINE_integer(
        "resamples", 2000, "Number of resamples of the bootstrap.", 100, 10**6, flag_values=values
    )


def run(flags, arguments):
    """Print the comparison of the run folders that arguments name; return 0."""
    if len(arguments) < 2:
        raise InputError("name the folders of two or more runs to compare.")
    runs = [comparison.load(Path(folder), str(n), article) for n, folder in enumerate(arguments, 1)]
    for each in runs:
        print(f"run {each.label}: {each.folder}, {each.experiment.name}, {len(each.history)} epochs")
    print_table("flags that differ", comparison.differing_flags(runs), runs)
    print_code(runs)
    print_table("metrics after the last epoch (in the best epoch)", metric_rows(runs), runs)
    if flags.group:
        print_groups(comparison.grouped(runs))
    elif len(runs) == 2:
        print_difference(*runs, resamples=flags.resamples)
    draw(runs, Path(flags.output_dir))
    return 0


def draw(runs, output_dir):
    """Write curves.png, or print that matplotlib is missing."""
    histories = {f"{run.label}: {run.folder.name}": run.history for run in runs}
    figure = render.compared_curves(histories, shown_metric(runs))
    if not figure:
        print("\nno curves: they need an extra, pip install -e '.[plots]'")
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    run_folder.write_figure(output_dir / "curves.png", figure)
    print(f"\ncurves: {output_dir / 'curves.png'}")


def metric_rows(runs):
    """Return metric -> list of texts, one per run: its value after the last epoch (and in the best epoch)."""
    names = dict.fromkeys(name for run in runs for name in run.final if is_metric(name))
    return {
        name: [
            f"{run.final[name]:.4f} ({run.best[name]:.4f})" if name in run.final else "-" for run in runs
        ]
        for name in names
    }  # fmt: skip


def shown_metric(runs):
    """Return the metric column that is drawn with the losses; all runs have it."""
    columns = f"val_{runs[0].experiment.best}", "val_accuracy", "val_loss"
    return next(column for column in columns if all(column in run.final for run in runs))


def print_table(title, rows, runs):
    """Print a table with a column per run. rows: name -> list of texts, one per run."""
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
    """Print the files whose code differs between the first run and the other runs."""
    lines = []
    for each in runs[1:]:
        missing = [run.label for run in (runs[0], each) if not run.code]
        changed = code_digest.changed_files(runs[0].code, each.code)
        if missing:
            lines.append(f"  run {each.label}: unknown, because run {missing[0]} has no code.json")
        elif changed:
            lines.append(f"  run {each.label}: {', '.join(changed)}")
    print("\nfiles whose code differs from run 1" + ("" if lines else ": none"))
    print("\n".join(lines), end="\n" if lines else "")


def print_difference(a, b, *, resamples):
    """Print the differences between two runs with their bootstrap intervals, or why there are none."""
    try:
        differences, images, clusters = comparison.bootstrap(a, b, resamples)
    except InputError as error:
        print(f"\nno bootstrap: {error}")
        return
    print(f"\nrun {b.label} - run {a.label} on {images} validation images of {clusters} files, 95 % interval")
    for name, (difference, low, high) in differences.items():
        print(f"  {name:<14}{difference:+.4f}  [{low:+.4f}, {high:+.4f}]  {verdict(low, high)}")
    print(
        "  The interval covers the choice of images. A different seed alone also changes the metrics; to\n"
        "  learn whether flags or code changed them, train several seeds of each version and use --group."
    )


def print_groups(groups):
    """Print mean and deviation of each group's metrics; for two groups also the difference of the means."""
    print("\ngroups: mean +- standard deviation over the seeds, after the last epoch")
    for number, group in enumerate(groups, 1):
        seeds = ", ".join(str(run.settings["seed"]) for run in group)
        labels = ", ".join(run.label for run in group)
        print(f"  group {number}: runs {labels}; n = {len(group)}, seeds {seeds}")
    for name in [name for name in groups[0][0].final if is_metric(name)]:
        samples = [[run.final[name] for run in group if name in run.final] for group in groups]
        cells = [summary(sample) for sample in samples]
        if len(samples) == 2 and min(map(len, samples)) > 1:
            difference, low, high = uncertainty.welch(*samples)
            interval = f"2 - 1: {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
            cells.append(f"{interval}  {verdict(low, high)}")
        print("  ".join([f"  {name:<16}", *cells]))


def summary(sample):
    """Format mean and standard deviation of a sample as text."""
    if not sample:
        return "-"
    deviation = f" +- {np.std(sample, ddof=1):.4f}" if len(sample) > 1 else ""
    return f"{np.mean(sample):.4f}{deviation} (n = {len(sample)})"


def verdict(low, high):
    """Return what a 95 % interval says about a difference, as text."""
    if np.isnan(low) or np.isnan(high):  # the metric is undefined in one of the runs
        return "undefined"
    return "differs" if low > 0 or high < 0 else "may be chance"


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
