"""Losses: functions (float32 logits, class ids) -> float32 [B], one number per example.

The mean over a data set therefore gives each example the same weight, whatever the batch sizes.
Pixels whose class id is `experiment.IGNORE` (255) are left out. To use class weights, bind
them: `functools.partial(losses.categorical_cross_entropy, class_weights=(1.0, 2.5))`.
"""

import numpy as np
import tensorflow as tf

from core.experiment import IGNORE
from core.runtime.errors import InputError


def binary_cross_entropy(logits, masks, *, class_weights=None):
    """Return each example's mean cross-entropy in nats per pixel: [B, H, W, 1], [B, H, W] -> [B].

    masks: class ids 0, 1 or IGNORE. class_weights: a factor for the pixels of each of the two
    classes. Computed from logits, so it is finite for any finite logit. Raises InputError if
    the logits have more than one channel.
    """
    if logits.shape[-1] != 1:
        raise InputError(
            f"losses.binary_cross_entropy: the network has {logits.shape[-1]} logits per pixel; use"
            " losses.categorical_cross_entropy, or a network with one logit for two classes."
        )
    counted, labels = _split_ignored(masks)
    per_pixel = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(labels, logits.dtype), logits=logits[..., 0]
    )
    return _mean(per_pixel, counted, labels, class_weights)


def categorical_cross_entropy(logits, masks, *, class_weights=None):
    """Return each example's mean cross-entropy in nats per pixel: [B, H, W, C], [B, H, W] -> [B].

    masks: class ids below C, or IGNORE. class_weights: a factor for the pixels of each of the C
    classes. Softmax and logarithm are computed together from logits, so the loss is finite for
    any finite logits. Raises InputError if the logits have one channel only.
    """
    if logits.shape[-1] == 1:
        raise InputError(
            "losses.categorical_cross_entropy: the network has one logit per pixel, so this loss is always"
            " 0; use losses.binary_cross_entropy, or a network with a logit for each class."
        )
    counted, labels = _split_ignored(masks)
    per_pixel = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int32), logits=logits
    )
    return _mean(per_pixel, counted, labels, class_weights)


def dice(logits, masks):
    """Return 1 - the soft Dice index of each example, 0 to 1: [B, H, W, C], [B, H, W] -> [B].

    If C is 1, the index is that of class 1, from the sigmoid. Otherwise the softmax is summed
    over the pixels of all classes, which gives 1 - the mean probability of the true class: a
    mean over classes would be dominated by classes with few pixels in an image. One pixel is
    added to numerator and denominator (Milletari et al., 2016, without the squares).
    """
    if logits.shape[-1] == 1:
        probability, truth = tf.sigmoid(logits), tf.cast(masks[..., None] == 1, tf.float32)
    else:
        probability, truth = tf.nn.softmax(logits), tf.one_hot(masks, logits.shape[-1])
    counted, _ = _split_ignored(masks)
    probability *= tf.cast(counted, tf.float32)[..., None]
    hit, both = (tf.reduce_sum(x, axis=[1, 2, 3]) for x in (probability * truth, probability + truth))
    return 1 - (2 * hit + 1) / (both + 1)


def balanced_class_weights(class_pixels):
    """Return class weights inverse to the number of pixels, float32 [C], with mean 1 over all pixels.

    class_pixels: int [C], number of pixels of each class in the training masks. A weight is
    total / (number of classes with pixels * pixels of the class), as in scikit-learn's
    "balanced". A class without pixels gets weight 1.
    """
    pixels = np.asarray(class_pixels, np.float64)
    occurring = np.count_nonzero(pixels)
    return np.where(pixels > 0, pixels.sum() / (occurring * np.maximum(pixels, 1)), 1).astype(np.float32)


def _split_ignored(masks):
    """Return a mask of the pixels that count, bool [B, H, W], and class ids with IGNORE replaced by 0."""
    masks = tf.convert_to_tensor(masks)
    counted = tf.not_equal(masks, IGNORE)
    return counted, tf.where(counted, masks, 0)


def _mean(per_pixel, counted, labels, class_weights):
    """Return the mean over the pixels that count in each example, [B]; 0 for an example without any.

    Class weights scale the sum, but not the number of pixels that divides it.
    """
    if class_weights is not None:
        per_pixel *= tf.gather(tf.constant(class_weights, per_pixel.dtype), tf.cast(labels, tf.int32))
    counted = tf.cast(counted, per_pixel.dtype)
    total, share = (tf.reduce_mean(x, axis=[1, 2]) for x in (per_pixel * counted, counted))
    return tf.math.divide_no_nan(total, share)
