"""Train a U-Net that segments street photos into 34 classes (Cityscapes).

Article:  "U-Net on Cityscapes", a blog post of 2021-02-19 signed Bend; no public address is known.
Claim:    the article reports no metric that can be compared with the metrics computed here.
Network:  core/models/labels_unet.py. Batch normalisation after each ReLU, input 256x256.
Settings: Adam with learning rate 1e-3, batches of 32, 60 epochs. The article's text names 60 epochs, but
          the `fit` call in the article's code runs 3 epochs.
          Training images are resized to 280x280, cropped at random to 256x256, and mirrored left to right
          with probability 0.5.
          The flag --best reads other settings from experiments/best/cityscapes_labels.cfg.
Data:     the folders leftImg8bit/ and gtFine/ from cityscapes-dataset.com, 2975 training and 500
          validation images. Without --data_dir, 96 training and 24 validation images are generated.
Time:     days on two CPU cores. In float32, batches of 32 need about 24 GB of memory, and batches of 4
          (--batch_size=4) about 5 GB.

Run: python -m experiments.cityscapes_labels
     python -m experiments.cityscapes_labels --data_dir=DIR --run_dir=runs/cityscapes_34
     python -m experiments.cityscapes_labels --best --data_dir=DIR
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
    """Define the flags that all experiments share, and this experiment's own flags.

    By default, the training uses the article's settings.
    """
    common_flags.define(
        values,
        name="cityscapes_labels",
        epochs=60,
        batch_size=32,
        size=256,
        multiple=2**labels_unet.DEPTH,
        learning_rate=1e-3,
        clip_norm=0.0,
    )
    new = common_flags.Definer(values)
    resize = (
        "Height and width in pixels to which training images are resized before they are cropped at random"
        " to --size. Validation images are resized to --size."
    )
    new.integer("resize", 280, resize, 1, 2**14)
    flags.register_multi_flags_validator(
        ["resize", "size"],
        lambda value: value["resize"] >= value["size"],
        "--resize must be at least --size, the size of the crops",
        **new.own,
    )


def experiment(flags):
    """Return the `Experiment` that the parsed flags define."""
    classes = len(cityscapes_labels.CLASSES)
    return Experiment(
        name="cityscapes_labels",
        classes=cityscapes_labels.CLASSES,
        palette=cityscapes_labels.PALETTE,
        dataset=cityscapes_labels.dataset(
            train_size=flags.resize, val_size=flags.size, white_level=flags.white_level
        ),
        init_weights=functools.partial(labels_unet.init_weights, classes=classes),
        forward=labels_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=cityscapes_labels.scores,
        best="mean_iou",
        augment=(functools.partial(augment.random_crop, size=flags.size), augment.flip),
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
