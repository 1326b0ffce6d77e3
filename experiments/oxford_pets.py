"""Train a U-Net that segments pet photos into pet, background and outline (Oxford-IIIT Pet).

Article:  "Semantic Image Segmentation Using UNet", Lohit Kapoor,
          https://medium.com/geekculture/semantic-image-segmentation-using-unet-28dbc247d63e,
          https://github.com/lohit-kapoor/Semantic-Image-Segmentation-Using-UNet
Claim:    a validation loss of about 0.394 after the last epoch, on 704 of the 3669 validation photos, read
          from the article's plot.
Network:  core/models/pets_unet.py. Input 128x128, dropout, 34 million parameters.
Settings: Adam with learning rate 1e-3, batches of 64, 10 epochs, as in the article's code.
          Training images are mirrored left to right with probability 0.5.
          The flag --best reads other settings from experiments/best/oxford_pets.cfg.
Data:     the folders images/ and annotations/ from the University of Oxford, 3680 training and 3669
          validation photos. `python -m experiments.download oxford_pets --data_dir=DIR` downloads them.
          Without --data_dir, 160 training and 40 validation photos are generated.
Time:     hours on two CPU cores; about half as long with --precision=bfloat16.

Run: python -m experiments.oxford_pets
     python -m experiments.oxford_pets --data_dir=DIR --run_dir=runs/pets
     python -m experiments.oxford_pets --best --data_dir=DIR
"""

import functools

from core import losses, metrics
from core.data import augment, oxford_pets
from core.experiment import Experiment
from core.models import pets_unet
from core.runtime import cli
from core.training import common_flags, loop


def define_flags(values):
    """Define the flags that all experiments share. By default, the training uses the article's settings."""
    common_flags.define(
        values,
        name="oxford_pets",
        epochs=10,
        batch_size=64,
        size=128,
        multiple=2**pets_unet.DEPTH,
        learning_rate=1e-3,
        clip_norm=0.0,
    )


def experiment(flags):
    """Return the `Experiment` that the parsed flags define."""
    return Experiment(
        name="oxford_pets",
        classes=oxford_pets.CLASSES,
        palette=oxford_pets.PALETTE,
        dataset=oxford_pets.dataset(size=flags.size, white_level=flags.white_level),
        init_weights=functools.partial(pets_unet.init_weights, classes=len(oxford_pets.CLASSES)),
        forward=pets_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=metrics.multiclass(oxford_pets.CLASSES),
        best="mean_iou",
        augment=(augment.flip,),
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
