"""Segmentation metrics, all computed from one confusion matrix summed over a data set.

`confusion[t, p]` is the number of pixels of class t that were predicted as class p. A ratio
with a zero denominator is NaN: a class absent from both truth and prediction has no IoU, and
is excluded from means.
"""

import numpy as np
import tensorflow as tf

from core.experiment import IGNORE
from core.runtime.errors import InputError


def class_ids(logits):
    """Return the predicted class ids, uint8 [B, H, W]: argmax, or logit > 0 if there is one logit."""
    if logits.shape[-1] == 1:
        return tf.cast(logits[..., 0] > 0, tf.uint8)
    return tf.cast(tf.argmax(logits, axis=-1), tf.uint8)


def confusion_matrix(truth, prediction, classes):
    """Return the confusion matrix, int64 [classes, classes], of two tensors of class ids with equal shapes.

    Pixels whose true class is `experiment.IGNORE` are left out. classes: at most 255.
    """
    truth, prediction = tf.cast(truth, tf.int32), tf.cast(prediction, tf.int32)
    pairs = tf.where(truth == IGNORE, classes**2, truth * classes + prediction)  # bincount skips classes**2
    with tf.device("CPU"):  # TensorFlow has no deterministic bincount for GPUs
        counts = tf.math.bincount(
            tf.reshape(pairs, [-1]), minlength=classes**2, maxlength=classes**2, dtype=tf.int64
        )
    return tf.reshape(counts, [classes, classes])


def accuracy(confusion):
    """Return the share of pixels that were predicted correctly."""
    return _ratio(np.trace(confusion), confusion.sum())


def iou(confusion):
    """Return the intersection over union (Jaccard index) of each class: float64 [classes]."""
    hit = np.diag(confusion)
    return _ratio(hit, confusion.sum(0) + confusion.sum(1) - hit)


def dice(confusion):
    """Return the Dice coefficient (F1 score) of each class: float64 [classes]."""
    return _ratio(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def precision(confusion):
    """Return the precision of each class (correct share of the pixels predicted as it): float64 [classes]."""
    return _ratio(np.diag(confusion), confusion.sum(0))


def recall(confusion):
    """Return the recall of each class (correctly predicted share of its pixels): float64 [classes]."""
    return _ratio(np.diag(confusion), confusion.sum(1))


def binary(confusion):
    """Return the metrics of class 1 against class 0, name -> value.

    Raises InputError if there are not two classes.
    """
    if len(confusion) != 2:
        raise InputError(
            f"metrics.binary is for two classes, but there are {len(confusion)}; use metrics.multiclass."
        )
    return {
        "iou": iou(confusion)[1],
        "accuracy": accuracy(confusion),
        "precision": precision(confusion)[1],
        "recall": recall(confusion)[1],
    }


def multiclass(classes):
    """Return a function (confusion) -> accuracy, mean IoU and the IoU of each class, by name.

    classes: the names of the classes. The mean is over the classes that occur in truth or
    prediction; `classes_averaged` is their number. The function raises InputError if the
    confusion matrix has another number of classes.
    """

    def class_metrics(confusion):
        if len(confusion) != len(classes):
            raise InputError(
                f"metrics.multiclass has {len(classes)} names for {len(confusion)} classes; name each class."
            )
        each = iou(confusion)
        return {
            "accuracy": accuracy(confusion),
            "mean_iou": np.nanmean(each) if np.isfinite(each).any() else np.nan,
            "classes_averaged": np.isfinite(each).sum(),
            **{f"iou/{name}": value for name, value in zip(classes, each)},
        }

    return class_metrics


def _ratio(part, whole):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part, np.float64) / np.asarray(whole, np.float64)
