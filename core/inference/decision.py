"""Convert logits to class probabilities and to class ids, eagerly or inside a `tf.function`."""

import math

import tensorflow as tf

from core import metrics


def probabilities(logits):
    """Convert logits, float32 [..., C], to class probabilities, float32 [..., classes].

    The probabilities of a pixel sum to 1. C is the number of classes. If there are two classes, C may also
    be 1: then the probability of class 1 is the sigmoid of the logit.
    """
    if logits.shape[-1] == 1:
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=-1)
    return tf.nn.softmax(logits)


def class_ids(logits, threshold=None):
    """Convert logits, float32 [..., C], to class ids, uint8 [...].

    C is the number of classes, or 1 if there are two classes. threshold: None, or a number above 0 and
    below 1. If threshold is None, each pixel gets its most probable class. A number requires two classes: a
    pixel gets class 1 if the probability of class 1 is above the threshold, otherwise class 0.
    """
    if threshold is None:
        return metrics.class_ids(logits)
    margin = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
    return tf.cast(margin > math.log(threshold) - math.log1p(-threshold), tf.uint8)
