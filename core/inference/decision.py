"""Convert logits to class ids and class probabilities, eagerly or in graphs."""

import math

import tensorflow as tf

from core import metrics


def probabilities(logits):
    """Return class probabilities, float32 [B, H, W, classes], with sum 1; one logit gives two classes."""
    if logits.shape[-1] == 1:
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=-1)
    return tf.nn.softmax(logits)


def class_ids(logits, threshold=None):
    """Return the class ids, uint8 [..., H, W], of float32 logits.

    threshold: None for the most probable class; for two classes, a number between 0 and 1: a
    pixel is of class 1 if the probability of class 1 is above the threshold.
    """
    if threshold is None:
        return metrics.class_ids(logits)
    margin = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
    return tf.cast(margin > math.log(threshold) - math.log1p(-threshold), tf.uint8)
