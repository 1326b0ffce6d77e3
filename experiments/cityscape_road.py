"""Road or not: the raw TensorFlow U-Net on Cityscapes image pairs.

Article: "Cityscape segmentation with raw TF 2.0": pairs at 128x128, Adam 1e-3,
batches of 5, 25 epochs; it claims no figure. Expect a road IoU of 0.90 to 0.92 on
the real validation pairs, in some 20 minutes on two cores (BUILD_NOTES.md), and 0.96
on generated scenes in 4.

Run: python -m experiments.cityscape_road --epochs=25
     python -m experiments.cityscape_road --epochs=25 --data_dir=DIR --run_dir=runs/cityscapes
DIR holds train/*.jpg and val/*.jpg; without it, 400 generated scenes are used.
--clip_norm=0 is the article, which may blow up on the whole set: see there.
"""

from absl import flags

from core import losses, metrics
from core.data import cityscapes_pairs
from core.experiment import Experiment
from core.models import road_unet
from core.runtime import cli
from core.training import common_flags, loop


def define_flags(values):
    """The article's settings: Adam 1e-3, batches of 5, 25 epochs, 128x128."""
    common_flags.define(
        values,
        name="cityscape_road",
        epochs=25,
        batch_size=5,
        size=128,
        multiple=2 ** (len(road_unet.FILTERS) - 1),
        learning_rate=1e-3,
        clip_norm=1.0,
    )
    flags.DEFINE_list(
        "road_rgb", "128,64,128", "Colour of road in the masks: red,green,blue.", flag_values=values
    )
    flags.DEFINE_integer(
        "road_tolerance",
        30,
        "A pixel is road if no channel is farther from --road_rgb than this.",
        lower_bound=0,
        upper_bound=255,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "clean_labels",
        False,
        "Smooth the masks at their full size, and let the majority decide when they are reduced: nearer"
        " to the official labels than the article's, which keep JPEG's noise.",
        flag_values=values,
    )
    flags.register_validator(
        "road_rgb",
        lambda rgb: len(rgb) == 3 and all(len(c) < 9 and c.strip().isdecimal() and int(c) < 256 for c in rgb),
        "must be three numbers from 0 to 255, as in 128,64,128",
        flag_values=values,
    )


def experiment(flags):
    """The article as a record, for parsed flags."""
    return Experiment(
        name="cityscape_road",
        classes=("background", "road"),
        palette=((0, 0, 0), (128, 64, 128)),
        dataset=cityscapes_pairs.road_dataset(
            size=flags.size,
            road_rgb=[int(channel) for channel in flags.road_rgb],
            road_tolerance=flags.road_tolerance,
            clean_labels=flags.clean_labels,
        ),
        init_weights=road_unet.init_weights,
        forward=road_unet.forward,
        loss=losses.binary_cross_entropy,
        metrics=metrics.binary,
        best="iou",
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
