"""Train a small U-Net that segments aerial photos of Dubai into six classes (MBRSC).

Article:  "Semantic Segmentation of Aerial Imagery using U-Net in Python", Andrew Davies, 2022,
          https://towardsdatascience.com/semantic-segmentation-of-aerial-imagery-using-u-net-in-python-552705238514,
          https://github.com/ad-1/u-net-aerial-imagery-segmentation
Claim:    on the article's validation patches, loss 0.4170, accuracy 0.8616 and Jaccard index 0.6599.
Network:  core/models/dubai_unet.py. Input 160x160, dropout.
Settings: Adam with learning rate 1e-3, batches of 32, 20 epochs.
          The flag --best reads other settings from experiments/best/dubai_aerial.cfg.
Data:     Kaggle "semantic-segmentation-of-aerial-imagery": 72 aerial photos, published by the Mohammed
          Bin Rashid Space Centre (MBRSC), in folders 'Tile 1' .. 'Tile 8'. The photos are cut into 3483
          patches, and a tenth of the patches is used for validation. Without --data_dir, 12 photos are
          generated.
Time:     about an hour on two CPU cores; about half as long with --precision=bfloat16.

The article's random split puts most validation patches next to training patches of the same photo. With
--split_by=image, all patches of a photo are in the same split.

The metric val_jaccard is the article's Jaccard index. Each batch has one index, computed from the predicted
probabilities in the whole batch. With several devices, the part of a batch on each device has one index.
val_jaccard is the mean of these indices, weighted by the numbers of images. The same network has a larger
val_jaccard with smaller batches, so compare this metric only between runs with the same --batch_size and the
same number of devices. The metric val_mean_iou is the usual mean IoU of predicted classes.

Run: python -m experiments.dubai_aerial
     python -m experiments.dubai_aerial --data_dir=DIR --run_dir=runs/dubai
     python -m experiments.dubai_aerial --data_dir=DIR --split_by=image --run_dir=runs/by_image
     python -m experiments.dubai_aerial --best --data_dir=DIR
"""

import functools

import tensorflow as tf

from core import losses, metrics
from core.data import dubai_aerial
from core.experiment import Experiment
from core.models import dubai_unet
from core.runtime import cli
from core.training import common_flags, loop

MULTIPLE = 2**dubai_unet.DEPTH  # number that must divide the side of a patch


def define_flags(values):
    """Define the flags that all experiments share, and this experiment's own flags.

    By default, the training uses the article's settings.
    """
    common_flags.define(
        values, name="dubai_aerial", epochs=20, batch_size=32, learning_rate=1e-3, clip_norm=0.0
    )
    new = common_flags.Definer(values)
    side = f"Height and width, in pixels, of the patches that photos are cut into; a multiple of {MULTIPLE}."
    new.integer("patch_size", 160, side, MULTIPLE)
    halved = f"must be a multiple of {MULTIPLE}, because the network halves the side at each level"
    new.must("patch_size", lambda size: size % MULTIPLE == 0, halved)
    split_by = (
        "patch: validate on a tenth of all patches, as in the article. image: validate on all patches of a"
        " tenth of the photos."
    )
    new.choice("split_by", "patch", ["patch", "image"], split_by)
    seed = "Seed of the random choice of the validation patches or photos."
    new.integer("split_seed", 42, seed, 0, 2**32 - 1)
    tolerance = (
        "A mask pixel belongs to the nearest class colour if no channel differs by more than this; otherwise"
        " it is unlabeled. Use a value above 0 for masks that were JPEG-compressed."
    )
    new.integer("colour_tolerance", 0, tolerance, 0, 255)


def soft_jaccard(logits, masks):
    """Return the article's Jaccard index of a batch, float32 [B], the same value for each example.

    logits: float32 [B, H, W, C]. masks: class ids uint8 [B, H, W]. Let p be the softmax probability of a
    class at a pixel, and let t be 1 if this class is the true class, otherwise 0. The index is
    (sum(p t) + 1) / (sum(p) + sum(t) - sum(p t) + 1). The sums run over all pixels and classes of the batch.
    """
    hit, union = _overlap(logits, masks, axis=[0, 1, 2, 3])
    return tf.fill([tf.shape(logits)[0]], (hit + 1) / (union + 1))


def soft_iou(logits, masks):
    """Return the article's IoU coefficient of each example, float32 [B].

    The function has the arguments and the formula of `soft_jaccard`, but each sum runs over the pixels and
    classes of a single example.
    """
    hit, union = _overlap(logits, masks, axis=[1, 2, 3])
    return (hit + 1) / (union + 1)


def _overlap(logits, masks, *, axis):
    """Return two float32 tensors, sum(p t) and sum(p) + sum(t) - sum(p t), with p and t as in `soft_jaccard`.

    logits: float32 [B, H, W, C]. masks: class ids uint8 [B, H, W]. axis: the axes of [B, H, W, C] over which
    the sums run.
    """
    truth, prediction = tf.one_hot(masks, logits.shape[-1]), tf.nn.softmax(logits)
    hit = tf.reduce_sum(truth * prediction, axis)
    return hit, tf.reduce_sum(truth, axis) + tf.reduce_sum(prediction, axis) - hit


def experiment(flags):
    """Return the `Experiment` that the parsed flags define."""
    return Experiment(
        name="dubai_aerial",
        classes=dubai_aerial.CLASSES,
        palette=dubai_aerial.PALETTE,
        dataset=dubai_aerial.dataset(
            patch_size=flags.patch_size,
            split_by=flags.split_by,
            split_seed=flags.split_seed,
            colour_tolerance=flags.colour_tolerance,
            white_level=flags.white_level,
        ),
        init_weights=functools.partial(dubai_unet.init_weights, classes=len(dubai_aerial.CLASSES)),
        forward=dubai_unet.forward,
        loss=losses.categorical_cross_entropy,
        metrics=metrics.multiclass(dubai_aerial.CLASSES),
        best="accuracy",
        measures={"jaccard": soft_jaccard, "iou_coefficient": soft_iou},
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
