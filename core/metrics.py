"""Segmentation metrics, all from one confusion matrix summed over a data set.

`confusion[t, p]` counts the pixels of class t that were predicted as class p.
Ratios whose denominator is zero are NaN: a class that is neither in the truth
nor in the prediction has no IoU, and counts for nothing in a mean.
"""

import numpy as np
import tensorflow as tf


def class_ids(logits):
    """Predicted class ids, uint8 [B, H, W]: argmax, or logit > 0 where there is one."""
    if logits.shape[-1] == 1:
        return tf.cast(logits[..., 0] > 0, tf.uint8)
    return tf.cast(tf.argmax(logits, axis=-1), tf.uint8)


def confusion_matrix(truth, prediction, classes):
    """int64 [classes, classes] from two tensors of class ids of the same shape."""
    truth, prediction = tf.cast(truth, tf.int32), tf.cast(prediction, tf.int32)
    pairs = tf.reshape(truth * classes + prediction, [-1])
    with tf.device("CPU"):  # on a GPU, counting is not among the deterministic ops
        counts = tf.math.bincount(pairs, minlength=classes**2, maxlength=classes**2, dtype=tf.int64)
    return tf.reshape(counts, [classes, classes])


def accuracy(confusion):
    """Share of the pixels that were predicted right."""
    return _ratio(np.trace(confusion), confusion.sum())


def iou(confusion):
    """Intersection over union (Jaccard index) of each class: float64 [classes]."""
    hit = np.diag(confusion)
    return _ratio(hit, confusion.sum(0) + confusion.sum(1) - hit)


def dice(confusion):
    """Dice coefficient, or F1, of each class: twice the hits over truth plus prediction."""
    return _ratio(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def precision(confusion):
    """Of the pixels predicted as a class, the share that is of it: [classes]."""
    return _ratio(np.diag(confusion), confusion.sum(0))


def recall(confusion):
    """Of the pixels of a class, the share that was predicted as it: [classes]."""
    return _ratio(np.diag(confusion), confusion.sum(1))


def binary(confusion):
    """Figures of class 1 against class 0, as a binary article reports them."""
    return {
        "iou": iou(confusion)[1],
        "accuracy": accuracy(confusion),
        "precision": precision(confusion)[1],
        "recall": recall(confusion)[1],
    }


def multiclass(classes):
    """A function (confusion) -> figures: accuracy, mean IoU, and the IoU of each class.

    classes: their names. The mean is over the classes that are in the truth or
    in the prediction; `classes_averaged` says how many those are.
    """

    def figures(confusion):
        each = iou(confusion)
        return {
            "accuracy": accuracy(confusion),
            "mean_iou": np.nanmean(each),
            "classes_averaged": np.isfinite(each).sum(),
            **{f"iou/{name}": value for name, value in zip(classes, each)},
        }

    return figures


def _ratio(part, whole):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part, np.float64) / np.asarray(whole, np.float64)
