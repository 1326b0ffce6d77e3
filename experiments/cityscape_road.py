"""Road and background: a raw TensorFlow U-Net on Cityscapes image pairs.

Article:  "Cityscape Image Segmentation With TensorFlow 2.0", Shubham Panchal, 2019,
          https://towardsdatascience.com/cityscape-segmentation-with-tensorflow-2-0-b320b6605cbf
Claim:    the article reports no metric.
Network:  core/models/road_unet.py. Input 128x128, nearest-neighbour up-sampling, one logit.
Settings: Adam 1e-3, batches of 5, 25 epochs. The default --clip_norm=1 is ours: without clipping
          (--clip_norm=0, the article) training may diverge on the whole set.
Data:     Kaggle "cityscapes-image-pairs", 2975 training and 500 validation images in train/*.jpg and
          val/*.jpg, photo on the left and mask colours on the right; without --data_dir, 400 + 100
          generated scenes.
Time:     about half an hour on two CPU cores; a few minutes on generated scenes.

Run: python -m experiments.cityscape_road
     python -m experiments.cityscape_road --data_dir=DIR --run_dir=runs/cityscapes
     python -m experiments.cityscape_road --best --data_dir=DIR
"""

from absl import flags

from core import losses, metrics
from core.data import cityscapes_pairs
from core.experiment import Experiment
from core.models import road_unet
from core.runtime import cli
from core.training import common_flags, loop


def define_flags(values):
    """Define the flags, with the article's settings as defaults."""
    common_flags.define(
        values,
        name="cityscape_road",
        epochs=25,
        batch_size=5,
        size=128,
        multiple=2**road_unet.DEPTH,
        learning_rate=1e-3,
        clip_norm=1.0,
    )
    flags.DEFINE_list(
        "road_rgb", "128,64,128", "Colour of road in the masks, as red,green,blue.", flag_values=values
    )
    flags.DEFINE_integer(
        "road_tolerance",
        30,
        "A pixel is road if each channel differs from --road_rgb by at most this much.",
        lower_bound=0,
        upper_bound=255,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "clean_labels",
        False,
        "Remove JPEG noise from the masks: smooth them at full size, then resize by majority. Both"
        " training and validation masks change and become closer to the official labels.",
        flag_values=values,
    )
    flags.register_validator(
        "road_rgb",
        lambda rgb: len(rgb) == 3 and all(len(c) < 9 and c.strip().isdecimal() and int(c) < 256 for c in rgb),
        "must be three numbers from 0 to 255, as in 128,64,128",
        flag_values=values,
    )


def experiment(flags):
    """Return the article's `Experiment` for parsed flags."""
    return Experiment(
        name="cityscape_road",
        classes=("background", "road"),
        palette=((0, 0, 0), (128, 64, 128)),
        dataset=cityscapes_pairs.road_dataset(
            size=flags.size,
            road_rgb=[int(channel) for channel in flags.road_rgb],
            road_tolerance=flags.road_tolerance,
            clean_labels=flags.clean_labels,
            white_level=flags.white_level,
        ),
        init_weights=road_unet.init_weights,
        forward=road_unet.forward,
        loss=losses.binary_cross_entropy,
        metrics=metrics.binary,
        best="iou",
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
