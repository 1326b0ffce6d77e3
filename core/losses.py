"""Losses: float32 logits and class ids -> one number per example.

Per example, so that the mean over a data set counts each example once however
the batches fall.
"""

import tensorflow as tf


def binary_cross_entropy(logits, masks):
    """Mean over the pixels of each example, in nats: [B, H, W, 1], [B, H, W] -> [B].

    masks holds 0 or 1. Computed from logits: finite for any finite logit.
    """
    per_pixel = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(masks, logits.dtype), logits=logits[..., 0]
    )
    return tf.reduce_mean(per_pixel, axis=[1, 2])


def categorical_cross_entropy(logits, masks):
    """Mean over the pixels of each example, in nats: [B, H, W, C], [B, H, W] -> [B].

    masks holds class ids below C. Softmax and logarithm are taken together, from
    logits: finite for any finite logits.
    """
    per_pixel = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(masks, tf.int32), logits=logits)
    return tf.reduce_mean(per_pixel, axis=[1, 2])


def dice(logits, masks):
    """1 - the soft Dice index of each example: [B, H, W, C], [B, H, W] -> [B], 0 to 1.

    Where C is 1, of the class 1 alone, by the sigmoid; else of all classes' pixels in
    one sum: 1 - the mean probability of the true class. (A mean over the classes would
    be ruled by those that an image has little or nothing of.) One pixel is added to
    numerator and denominator (Milletari et al., 2016, without the squares).
    """
    if logits.shape[-1] == 1:
        share, truth = tf.sigmoid(logits), tf.cast(masks[..., None] == 1, tf.float32)
    else:
        share, truth = tf.nn.softmax(logits), tf.one_hot(masks, logits.shape[-1])
    hit, both = (tf.reduce_sum(each, axis=[1, 2, 3]) for each in (share * truth, share + truth))
    return 1 - (2 * hit + 1) / (both + 1)
