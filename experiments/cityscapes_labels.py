"""Street scenes in 34 classes: the U-Net with batch normalisation on Cityscapes.

Article: "U-Net on Cityscapes": 2975 training images at 256x256, Adam 1e-3, batches
of 32, 60 epochs, the best checkpoint kept. Batches of 32 want some 24 GB of
memory in float32; --batch_size=4 runs in 5. Of the 60 epochs two were run here, in
99 minutes on two cores: mean IoU 0.236 over the official 19 classes (BUILD_NOTES.md).

Run: python -m experiments.cityscapes_labels
     python -m experiments.cityscapes_labels --data_dir=DIR --run_dir=runs/cityscapes_34
DIR holds leftImg8bit/ and gtFine/ as cityscapes-dataset.com has them; without
it, 96 generated scenes are used.
"""

import functools

from absl import flags

from core import losses
from core.data import augment, cityscapes_labels
from core.experiment import Experiment
from core.models import labels_unet
from core.runtime import cli
from core.training import common_flags, loop


def define_flags(values):
    """The article's settings."""
    common_flags.define(
        values,
        name="cityscapes_labels",
        epochs=60,
        batch_size=32,
        size=256,
        multiple=2 ** (len(labels_unet.FILTERS) - 1),
        learning_rate=1e-3,
        clip_norm=0.0,
    )
    flags.DEFINE_integer(
        "resize",
        280,
        "Height and width of training images before a random crop of --size.",
        lower_bound=1,
        upper_bound=2**14,
        flag_values=values,
    )
    flags.register_multi_flags_validator(
        ["resize", "size"],
        lambda value: value["resize"] >= value["size"],
        "--resize must not be below --size: crops are cut from it",
        flag_values=values,
    )


def experiment(flags):
    """The article as a record, for parsed flags."""
    classes = len(cityscapes_labels.CLASSES)
    return Experiment(
        name="cityscapes_labels",
        classes=cityscapes_labels.CLASSES,
        palette=cityscapes_labels.PALETTE,
        dataset=cityscapes_labels.dataset(train_size=flags.resize, val_size=flags.size),
        init_weights=functools.partial(labels_unet.init_weights, classes=classes),
        forward=labels_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=cityscapes_labels.figures,
        best="mean_iou",
        augment=(functools.partial(augment.random_crop, size=flags.size), augment.flip),
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
