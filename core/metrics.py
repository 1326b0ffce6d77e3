"""Segmentation metrics, computed from a confusion matrix that is summed over a whole data set.

The argument `confusion` of most functions is a confusion matrix [classes, classes]: `confusion[t, p]` is the
number of pixels of class t that were predicted as class p. The matrix is int64. Only `experiments.compare`
passes float64, with integer values. A ratio with a zero denominator is NaN. For example, the IoU of a class
is NaN if the class occurs neither in the true masks nor in the predicted masks. Means over classes leave out
the classes whose value is NaN.
"""

import numpy as np
import tensorflow as tf

from core.experiment import IGNORE
from core.runtime.errors import InputError


def class_ids(logits):
    """Return the predicted class of each pixel, uint8 [B, H, W].

    logits: [B, H, W, C]. If C is 1, the predicted class is 1 where the logit is above 0, and 0 elsewhere.
    Otherwise the predicted class is the class with the largest logit.
    """
    if logits.shape[-1] == 1:
        return tf.cast(logits[..., 0] > 0, tf.uint8)
    return tf.cast(tf.argmax(logits, axis=-1), tf.uint8)


def confusion_matrix(truth, prediction, classes):
    """Return the confusion matrix of true and predicted class ids, an int64 tensor [classes, classes].

    The other functions of this module need the matrix as an array (`.numpy()`). truth, prediction: integer
    tensors of exactly the same shape. Their ids must be below `classes`, because other ids give wrong counts.
    Only the true class may also be `experiment.IGNORE`; such pixels are left out. classes: the number of
    classes, at most 255.
    """
    size = classes**2
    with tf.device("CPU:0"):  # TensorFlow has no deterministic bincount for GPUs
        truth, prediction = tf.cast(truth, tf.int32), tf.cast(prediction, tf.int32)
        # Each pixel gets the number truth * classes + prediction, and bincount counts the pixels of each
        # number. Pixels with the true class IGNORE get the number `size`, which bincount drops because of
        # maxlength.
        pairs = tf.where(truth == IGNORE, size, truth * classes + prediction)
        counts = tf.math.bincount(tf.reshape(pairs, [-1]), minlength=size, maxlength=size, dtype=tf.int64)
        return tf.reshape(counts, [classes, classes])


def is_wrong(truth, prediction):
    """Return True for each pixel whose predicted class differs from its true class: bool, same shape.

    truth, prediction: integer tensors, or integer arrays, of the same shape. A pixel whose true class is
    IGNORE is never wrong.
    """
    return (truth != prediction) & (truth != IGNORE)


def accuracy(confusion):
    """Return the share of all pixels whose class was predicted correctly: float64, 0 to 1."""
    return _ratio(np.trace(confusion), confusion.sum())


def iou(confusion):
    """Return the intersection over union (Jaccard index) of each class: float64 [classes]."""
    hit = np.diag(confusion)
    return _ratio(hit, confusion.sum(0) + confusion.sum(1) - hit)


def dice(confusion):
    """Return the Dice coefficient (F1 score) of each class: float64 [classes]."""
    return _ratio(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def precision(confusion):
    """Return the precision of each class, float64 [classes].

    The precision of a class is (correctly predicted pixels of the class) / (pixels predicted as the class).
    """
    return _ratio(np.diag(confusion), confusion.sum(0))


def recall(confusion):
    """Return the recall of each class, float64 [classes].

    The recall of a class is (correctly predicted pixels of the class) / (all pixels of the class).
    """
    return _ratio(np.diag(confusion), confusion.sum(1))


def mean_over_classes(values):
    """Return the mean of a metric over the classes that have a value; NaN if no class has one.

    values: float64 [classes], such as the result of `iou`. NaN means that a class has no value. For example,
    a class has no IoU if it occurs neither in the true masks nor in the predicted masks.
    """
    found = values[np.isfinite(values)]
    return found.mean() if found.size else np.nan


def is_metric(column):
    """True if a column of metrics.csv holds a loss, or a metric whose name does not end in a class name.

    True for `val_iou`, False for `val_iou/road`. Also False for columns whose name contains
    "classes_averaged", because these columns hold a number of classes. column: the column's name.
    """
    return column.startswith(("train_", "val_")) and "/" not in column and "classes_averaged" not in column


def binary(confusion):
    """Return the metrics `iou`, `accuracy`, `precision` and `recall` for two classes: dict of name -> value.

    IoU, precision and recall are the values of class 1. Accuracy is computed over both classes. Raises
    InputError if the confusion matrix does not have two classes.
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
    """Return a function that computes a dict of metrics, name -> value, from a confusion matrix.

    classes: the names of the classes. The metrics are `accuracy`, `mean_iou`, `classes_averaged`, and
    `iou/NAME` for each class. `mean_iou` is the mean over the classes that occur in the true masks or
    in the predicted masks. `classes_averaged` is the number of these classes. The returned function raises
    InputError if the confusion matrix does not have one row for each name.
    """

    def class_metrics(confusion):
        if len(confusion) != len(classes):
            raise InputError(
                f"metrics.multiclass has {len(classes)} names for {len(confusion)} classes; name each class."
            )
        each = iou(confusion)
        return {
            "accuracy": accuracy(confusion),
            "mean_iou": mean_over_classes(each),
            "classes_averaged": np.isfinite(each).sum(),
            **{f"iou/{name}": value for name, value in zip(classes, each)},
        }

    return class_metrics


def _ratio(part, whole):
    """Return part / whole as float64. The ratio is NaN where both are 0, without a warning from NumPy."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part, np.float64) / np.asarray(whole, np.float64)
