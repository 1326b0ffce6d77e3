"""Dubai from the air in six classes: a small U-Net with dropout on the MBRSC set.

Article: "Semantic Segmentation of MBRSC Aerial Imagery of Dubai Using a
TensorFlow U-Net Model in Python": 72 photos cut into 3483 patches of 160x160, a
tenth of them for validation; Adam 1e-3, batches of 32, 20 epochs. Its claim, on
its validation patches: loss 0.4170, accuracy 0.8616, Jaccard index 0.6599. Expect
0.426, 0.859 and 0.674, in 35 minutes on one core with --precision=bfloat16
(BUILD_NOTES.md).

Its random split puts most validation patches beside training patches of the same
photo; --split_by=image keeps the patches of a photo together. Its Jaccard index
is `soft_jaccard` below, a mean over batches, and the larger the smaller these are:
--batch_size and --strategy must be the same where two are compared. mean_iou is the
usual figure, of decided classes.

Run: python -m experiments.dubai_aerial --epochs=20
     python -m experiments.dubai_aerial --epochs=20 --data_dir=DIR --run_dir=runs/dubai
     python -m experiments.dubai_aerial --epochs=20 --data_dir=DIR --split_by=image --run_dir=runs/by_image
DIR holds 'Tile 1' .. 'Tile 8', as Kaggle's "semantic segmentation of aerial
imagery" has them; without it, 12 generated photos are used.
"""

import functools

import tensorflow as tf
from absl import flags

from core import losses, metrics
from core.data import dubai_aerial
from core.experiment import Experiment
from core.models import dubai_unet
from core.runtime import cli
from core.training import common_flags, loop

MULTIPLE = 2 ** (len(dubai_unet.FILTERS) - 1)


def define_flags(values):
    """The article's settings."""
    common_flags.define(
        values, name="dubai_aerial", epochs=20, batch_size=32, learning_rate=1e-3, clip_norm=0.0
    )
    flags.DEFINE_integer(
        "patch_size",
        160,
        f"Height and width, in pixels, of the patches that photos are cut into; a multiple of {MULTIPLE}.",
        lower_bound=MULTIPLE,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "split_by",
        "patch",
        ["patch", "image"],
        "Validate on a tenth of all patches, as the article, or on the patches of a tenth of the photos.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "split_seed",
        42,
        "Decides which patches or photos those are.",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=values,
    )
    flags.register_validator(
        "patch_size",
        lambda size: size % MULTIPLE == 0,
        f"must be a multiple of {MULTIPLE}: the network halves it again and again",
        flag_values=values,
    )


def soft_jaccard(logits, masks):
    """The article's Jaccard index of a batch, the same for each example: float32 [B].

    logits: float32 [B, H, W, C], masks: class ids [B, H, W]. All pixels and
    classes of the batch make one sum of softmax probabilities, plus one.
    """
    hit, union = _overlap(logits, masks, axis=[0, 1, 2, 3])
    return tf.fill([tf.shape(logits)[0]], (hit + 1) / (union + 1))


def soft_iou(logits, masks):
    """The article's IoU coefficient: as `soft_jaccard`, but summed over each example."""
    hit, union = _overlap(logits, masks, axis=[1, 2, 3])
    return (hit + 1) / (union + 1)


def _overlap(logits, masks, *, axis):
    """Soft intersection and union of prediction and truth, summed over the axes."""
    truth, prediction = tf.one_hot(masks, logits.shape[-1]), tf.nn.softmax(logits)
    hit = tf.reduce_sum(truth * prediction, axis)
    return hit, tf.reduce_sum(truth, axis) + tf.reduce_sum(prediction, axis) - hit


def experiment(flags):
    """The article as a record, for parsed flags."""
    return Experiment(
        name="dubai_aerial",
        classes=dubai_aerial.CLASSES,
        palette=dubai_aerial.PALETTE,
        dataset=dubai_aerial.dataset(
            patch_size=flags.patch_size, split_by=flags.split_by, split_seed=flags.split_seed
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
