"""Losses: functions (logits, masks) -> float32 [B], one loss per example of a batch.

Because there is one loss per example, the mean over a data set does not depend on the batch sizes.
Pixels whose class id is `experiment.IGNORE` (255) are left out of the loss. An experiment with class weights
has, for example, the loss `functools.partial(losses.categorical_cross_entropy, class_weights=(1.0, 2.5))`.
"""

import numpy as np
import tensorflow as tf

from core.experiment import IGNORE
from core.runtime.errors import InputError


def binary_cross_entropy(logits, masks, *, class_weights=None):
    """Return the mean binary cross-entropy of each example, float32 [B], in nats per pixel.

    logits: float32 [B, H, W, 1]. masks: class ids [B, H, W], each 0, 1 or IGNORE. class_weights: None, or two
    factors. The first factor multiplies the loss at pixels of class 0, and the second factor multiplies the
    loss at pixels of class 1. Sigmoid and logarithm are computed together, so the loss is finite for all
    finite logits. Raises InputError if the logits have several channels.
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
    """Return the mean cross-entropy of each example, float32 [B], in nats per pixel.

    logits: float32 [B, H, W, C]. masks: class ids [B, H, W], each below C or equal to IGNORE. class_weights:
    None, or C factors. The factor with index c multiplies the loss at pixels of class c. Softmax and
    logarithm are computed together, so the loss is finite for all finite logits. Raises InputError if the
    logits have a single channel.
    """
    if logits.shape[-1] == 1:
        raise InputError(
            "losses.categorical_cross_entropy: the network has one logit per pixel, so this loss is always"
            " 0; use losses.binary_cross_entropy, or a network with a logit for each class."
        )
    counted, labels = _split_ignored(masks)
    # int64, because TensorFlow reshapes int32 on the host even if there is a GPU
    per_pixel = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int64), logits=logits
    )
    return _mean(per_pixel, counted, labels, class_weights)


def dice(logits, masks):
    """Return the Dice loss of each example, which is 1 minus the soft Dice index: float32 [B], 0 to 1.

    logits: float32 [B, H, W, C]. masks: class ids [B, H, W]. Pixels with the id IGNORE are left out. Let p be
    the predicted probability of a class at a pixel. Let t be 1 if this class is the true class, otherwise 0.
    The soft Dice index is (2 * sum(p * t) + 1) / (sum(p + t) + 1). Milletari et al. (2016) use the
    squares of p and t in the denominator and do not add 1.

    If C is 1, p is the sigmoid of the logit, and the sums run over all pixels for class 1 alone. Otherwise p
    is the softmax of the logits, and the sums run over all pixels and all classes. The loss is then nearly
    1 minus the mean probability of the true class. The function does not compute one Dice index for each
    class and then their mean, because this mean would depend too much on classes with few pixels.
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
    """Return one weight per class, a tuple of C floats, inversely proportional to the class's pixel count.

    class_pixels: int [C], the number of pixels of each class in the training masks. Let N be the sum of these
    numbers, and K the number of classes that have pixels. The weight of a class with n pixels is N / (K * n),
    as with class_weight="balanced" in scikit-learn. The mean weight over all pixels is therefore 1. The
    weight of a class without pixels is 1.
    """
    pixels = np.asarray(class_pixels, np.float64)
    occurring = np.count_nonzero(pixels)
    weights = np.where(pixels > 0, pixels.sum() / (occurring * np.maximum(pixels, 1)), 1)
    return tuple(weights.astype(np.float32).tolist())


def _split_ignored(masks):
    """Return (counted, labels) for masks [B, H, W] of class ids.

    counted: bool [B, H, W], False at pixels with the id IGNORE. labels: class ids [B, H, W], 0 at these
    pixels.
    """
    masks = tf.convert_to_tensor(masks)
    counted = tf.not_equal(masks, IGNORE)
    return counted, tf.where(counted, masks, 0)


def _mean(per_pixel, counted, labels, class_weights):
    """Return the mean loss of each example over the pixels that are counted, float32 [B].

    per_pixel: [B, H, W], the loss of each pixel. counted, labels: see `_split_ignored`. class_weights: None,
    or one factor for each class, by which the loss at the pixels of this class is multiplied. The sum of the
    weighted losses is divided by the number of counted pixels, not by the sum of their weights. The mean is 0
    if no pixel of the example is counted.
    """
    if class_weights is not None:
        per_pixel *= tf.gather(tf.constant(class_weights, per_pixel.dtype), tf.cast(labels, tf.int32))
    counted = tf.cast(counted, per_pixel.dtype)
    total, share = (tf.reduce_mean(x, axis=[1, 2]) for x in (per_pixel * counted, counted))
    return tf.math.divide_no_nan(total, share)
