"""All figures of a trained run on its validation images, or on others.

Run: python -m experiments.evaluate --run_dir=runs/cityscape_road
     python -m experiments.evaluate --run_dir=runs/cityscape_road --split=train --data_dir=DIR
"""

from pathlib import Path

from absl import flags

from core.inference import report, restore
from core.runtime import cli
from experiments import article


def define_flags(values):
    """Which weights, on what, where to."""
    restore.define_flags(values)
    flags.DEFINE_string(
        "data_dir", None, "Folder of a data set, in place of the run's own.", flag_values=values
    )
    flags.DEFINE_enum("split", "val", ["val", "train"], "Which of its images.", flag_values=values)
    flags.DEFINE_integer(
        "batch_size", None, "Images at once; without it, the run's.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder for the results; without it, evaluation/ in the run folder.",
        flag_values=values,
    )


def run(flags):
    """Print the figures and write them with the pictures; 0."""
    trained = restore.restore(flags, article, data=True, data_dir=flags.data_dir)
    output_dir = Path(flags.output_dir or Path(flags.run_dir) / "evaluation")
    figures = report.evaluate(trained, flags.split, output_dir, batch_size=flags.batch_size)
    classes = figures.pop("classes")
    for name, value in figures.items():
        if "/" not in name:  # a figure of one class: in the table below
            print(f"{name:<30}{value:8.4f}")
    print(f"{'':<30}{'IoU':>8}{'Dice':>10}{'precision':>11}{'recall':>8}{'pixels':>14}")
    for name, each in classes.items():
        print(
            f"{name:<30}{each['iou']:8.4f}{each['dice']:10.4f}{each['precision']:11.4f}"
            f"{each['recall']:8.4f}{each['pixels']:14,}"
        )
    print(f"{output_dir}: figures.json, confusion.csv, confusion.png, worst.png")
    return 0


if __name__ == "__main__":
    cli.main(define_flags, run)
