"""Convert logits to class ids and class probabilities, eagerly or in graphs."""

import math

import tensorflow as tf

from core import metrics


def probabilities(logits):
    """Convert float32 logits [..., C] to class probabilities, float32 [..., classes], which sum to 1.

    C is the number of classes, or 1 for two classes; that one logit belongs to class 1.
    """
    if logits.shape[-1] == 1:
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=-1)
    return tf.nn.softmax(logits)


def class_ids(logits, threshold=None):
    """Convert float32 logits [..., C] to class ids, uint8 [...].

    threshold: None: each pixel gets its most probable class. A number between 0 and 1, for two classes:
    a pixel gets class 1 if the probability of class 1 is above the threshold, otherwise class 0.
    """
    if threshold is None:
        return metrics.class_ids(logits)
    margin = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
    return tf.cast(margin > math.log(threshold) - math.log1p(-threshold), tf.uint8)
