"""Pet, background, outline: the U-Net with dropout on the Oxford-IIIT Pet set.

Article: "Semantic image segmentation using UNet": 3680 training images at
128x128, Adam 1e-3, batches of 64, 10 epochs in its code. Not run here on the full
set, which takes an hour and more on two cores with --precision=bfloat16; on 303
images BUILD_NOTES.md has a run.

Run: python -m experiments.oxford_pets
     python -m experiments.oxford_pets --data_dir=DIR --run_dir=runs/pets
DIR holds images/ and annotations/ as the university publishes them; without it,
160 generated pets are used.
"""

import functools

from core import losses, metrics
from core.data import augment, oxford_pets
from core.experiment import Experiment
from core.models import pets_unet
from core.runtime import cli
from core.training import common_flags, loop


def define_flags(values):
    """The article's settings."""
    common_flags.define(
        values,
        name="oxford_pets",
        epochs=10,
        batch_size=64,
        size=128,
        multiple=2 ** (len(pets_unet.FILTERS) - 1),
        learning_rate=1e-3,
        clip_norm=0.0,
    )


def experiment(flags):
    """The article as a record, for parsed flags."""
    return Experiment(
        name="oxford_pets",
        classes=oxford_pets.CLASSES,
        palette=oxford_pets.PALETTE,
        dataset=oxford_pets.dataset(size=flags.size),
        init_weights=functools.partial(pets_unet.init_weights, classes=len(oxford_pets.CLASSES)),
        forward=pets_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=metrics.multiclass(oxford_pets.CLASSES),
        best="mean_iou",
        augment=(augment.flip,),
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
