"""Pet, background, outline: a U-Net on a frozen MobileNetV2, Oxford-IIIT Pet set.

Article: the TensorFlow tutorial "Image segmentation": 3680 training images at
128x128, an encoder trained on ImageNet, Adam 1e-3, batches of 64, 20 epochs.
Claim: about 0.877 of the validation pixels right after 20 epochs. Not run here on
the full set and the published weights, which takes a quarter of an hour on two
cores; from scratch, on 303 images, BUILD_NOTES.md has a run.

Run: python -m experiments.oxford_pets_mobilenet --data_dir=DIR
     python -m experiments.oxford_pets_mobilenet --encoder_weights=none --train_encoder --run_dir=runs/scratch
DIR holds images/ and annotations/ as the university publishes them; without it,
160 generated pets are used. The weights are read where a run begins, not where it
goes on.
"""

import functools

from absl import flags

from core import losses, metrics
from core.data import augment, oxford_pets
from core.experiment import Experiment
from core.models import mobilenet_unet, mobilenet_v2
from core.runtime import cli
from core.training import common_flags, loop, pretrained


def define_flags(values):
    """The article's settings."""
    common_flags.define(
        values,
        name="oxford_pets_mobilenet",
        epochs=20,
        batch_size=64,
        size=128,
        multiple=2 ** len(mobilenet_v2.TAP_CHANNELS),
        learning_rate=1e-3,
        clip_norm=0.0,
    )
    flags.DEFINE_string(
        "encoder_weights",
        "imagenet",
        "What the encoder starts from: imagenet (downloaded once), the path of a Keras .h5 or"
        " .weights.h5 file, or none: from scratch, of use with --train_encoder alone.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "train_encoder",
        False,
        "Train the encoder too, its normalisation by batch included.",
        flag_values=values,
    )


def experiment(flags):
    """The article as a record, for parsed flags."""

    def load_weights(weights):
        source = flags.encoder_weights
        if source != "none":
            path = pretrained.download(flags.size) if source == "imagenet" else source
            pretrained.load(mobilenet_unet.encoder(weights), path)

    return Experiment(
        name="oxford_pets_mobilenet",
        classes=oxford_pets.CLASSES,
        palette=oxford_pets.PALETTE,
        dataset=oxford_pets.dataset(size=flags.size),
        init_weights=functools.partial(
            mobilenet_unet.init_weights,
            classes=len(oxford_pets.CLASSES),
            train_encoder=flags.train_encoder,
        ),
        load_weights=load_weights,
        forward=mobilenet_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=metrics.multiclass(oxford_pets.CLASSES),
        best="accuracy",
        augment=(augment.flip,),
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
