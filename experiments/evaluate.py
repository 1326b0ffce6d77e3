"""Compute all metrics of a trained run on its validation images or on other images.

Run: python -m experiments.evaluate --run_dir=runs/cityscape_road
     python -m experiments.evaluate --run_dir=runs/cityscape_road --split=all --data_dir=DIR

Without --output_dir, each evaluation writes to a new folder, such as
runs/cityscape_road/evaluation/val_best. The files in this folder are:

figures.json    metrics, data folder, split, checkpoint, digest of the code, and date
confusion.csv   the confusion matrix: numbers of pixels, with one row per true class
confusion.png   a drawing of the confusion matrix
worst.png       the 10 images with the most wrong pixels
"""

from pathlib import Path

from absl import flags

from core.inference import report, restore
from core.runtime import cli
from experiments import article


def define_flags(values):
    """Define the flags that choose the trained weights, the images and the output folder."""
    restore.define_flags(values)
    own = {"flag_values": values}
    data_dir = (
        "Folder of the data set; by default the folder that the run was trained on. The run's training and"
        " validation images are recognised by their pixels, even if files were moved or added."
    )
    flags.DEFINE_string("data_dir", None, data_dir, **own)
    split = (
        "Which images to evaluate. val: the run's validation images; train: its training images; all: every"
        " image in the folder, for example to evaluate the run on a new data set."
    )
    flags.DEFINE_enum("split", "val", ["val", "train", "all"], split, **own)
    batch = "Images per batch; by default the batch size of the training."
    flags.DEFINE_integer("batch_size", None, batch, 1, 10**9, **own)
    output_dir = "Folder for the results; by default a new subfolder of evaluation/ in the run folder."
    flags.DEFINE_string("output_dir", None, output_dir, **own)


def run(flags):
    """Evaluate the network of a trained run, write the result files, print the metrics, and return 0.

    Raises InputError if `restore.restore` or `report.evaluate` does.
    """
    trained = restore.restore(flags, article, data=True, data_dir=flags.data_dir, limit=flags.split != "all")
    output_dir = Path(flags.output_dir) if flags.output_dir else None
    results, output_dir = report.evaluate(trained, flags.split, output_dir, batch_size=flags.batch_size)
    for name, value in results.items():
        # a name with a slash, such as iou/road, is a metric of one class; the table below shows these metrics
        if name not in ("classes", "evaluation") and "/" not in name:
            print(f"{name:<30}{value:8.4f}")
    print(f"{'':<30}{'IoU':>8}{'Dice':>10}{'precision':>11}{'recall':>8}{'pixels':>14}")
    for name, each in results["classes"].items():
        print(
            f"{name:<30}{each['iou']:8.4f}{each['dice']:10.4f}{each['precision']:11.4f}"
            f"{each['recall']:8.4f}{each['pixels']:14,}"
        )
    print(f"{output_dir}: figures.json, confusion.csv, confusion.png, worst.png")
    return 0


if __name__ == "__main__":
    cli.main(define_flags, run)
