"""Segment photos of any size with a trained run: class ids, colours, overlay for each.

Run: python -m experiments.predict --run_dir=runs/cityscape_road photo.jpg folder
     python -m experiments.predict --run_dir=runs/dubai_aerial --tta=flip --tile=2048 city.tif
"""

from pathlib import Path

from absl import flags

from core.inference import photos, predict, restore
from core.runtime import cli
from experiments import article


def define_flags(values):
    """Which weights, where to, how."""
    restore.define_flags(values)
    flags.DEFINE_string("output_dir", "predicted", "Folder for the results.", flag_values=values)
    flags.DEFINE_enum(
        "size",
        "train",
        ["train", "native"],
        "The network sees an image as in validation, scaled if images were; or at its own size.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "tile",
        1024,
        "Height and width of the tiles that larger images go in at their own size; memory grows"
        " with its square.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "tta", None, ["flip"], "Mean of an image's logits and its mirror image's.", flag_values=values
    )


def run(flags, arguments):
    """Segment the image files, and those in the folders, that arguments name."""
    paths = photos.find([Path(argument) for argument in arguments])
    trained = restore.restore(flags, article)
    return predict.run(
        trained.experiment,
        trained.weights,
        trained.dtype,
        paths,
        Path(flags.output_dir),
        resize=trained.experiment.dataset.size if flags.size == "train" else None,
        tile=flags.tile,
        flip=flags.tta == "flip",
    )


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
