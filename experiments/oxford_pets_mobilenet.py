"""Train a U-Net with a frozen MobileNetV2 encoder to segment pet photos (Oxford-IIIT Pet).

Article:  "Image segmentation", a tutorial on tensorflow.org, published in 2019 and updated since,
          https://www.tensorflow.org/tutorials/images/segmentation
Claim:    an accuracy of 0.877 after 20 epochs, on 704 of the 3669 validation photos, with masks resized
          bilinearly.
Network:  core/models/mobilenet_unet.py. Input 128x128; the encoder has ImageNet weights and is not
          trained. The classes are pet, background and outline.
Settings: Adam with learning rate 1e-3, batches of 64, 20 epochs.
          Training images are mirrored left to right with probability 0.5.
          The flag --best reads other settings from experiments/best/oxford_pets_mobilenet.cfg.
Data:     the folders images/ and annotations/ from the University of Oxford, 3680 training and 3669
          validation photos. `python -m experiments.download oxford_pets --data_dir=DIR` downloads them.
          Without --data_dir, 160 training and 40 validation photos are generated. With the default
          --encoder_weights=imagenet, a new run downloads the ImageNet weights unless Keras' cache folder
          already holds them.
Time:     about 40 minutes on two CPU cores; about half as long with --precision=bfloat16.

Run: python -m experiments.oxford_pets_mobilenet --data_dir=DIR
     python -m experiments.oxford_pets_mobilenet --encoder_weights=none --train_encoder --run_dir=runs/scratch
     python -m experiments.oxford_pets_mobilenet --best --data_dir=DIR
"""

import functools

from core import losses, metrics
from core.data import augment, oxford_pets
from core.experiment import Experiment
from core.models import mobilenet_unet
from core.runtime import cli
from core.training import common_flags, loop, pretrained


def define_flags(values):
    """Define the flags that all experiments share, and this experiment's own flags.

    By default, the training uses the settings of the tutorial. The network scales images to x / 128 - 1, as
    in the tutorial of 2019. Later versions of the tutorial compute x / 255.
    """
    common_flags.define(
        values,
        name="oxford_pets_mobilenet",
        epochs=20,
        batch_size=64,
        size=128,
        multiple=2 ** (mobilenet_unet.DEPTH + 1),
        learning_rate=1e-3,
        clip_norm=0.0,
    )
    pretrained.define_flags(values)


def experiment(flags):
    """Return the `Experiment` that the parsed flags define."""
    return Experiment(
        name="oxford_pets_mobilenet",
        classes=oxford_pets.CLASSES,
        palette=oxford_pets.PALETTE,
        dataset=oxford_pets.dataset(size=flags.size, white_level=flags.white_level),
        init_weights=functools.partial(
            mobilenet_unet.init_weights,
            classes=len(oxford_pets.CLASSES),
            train_encoder=flags.train_encoder,
            freeze_encoder_norm=flags.freeze_encoder_norm,
        ),
        load_weights=lambda weights: pretrained.initialise(
            mobilenet_unet.encoder(weights), flags.encoder_weights, flags.size
        ),
        forward=mobilenet_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=metrics.multiclass(oxford_pets.CLASSES),
        best="accuracy",
        augment=(augment.flip,),
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
