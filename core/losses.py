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
    per_pixel = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(masks, tf.int32), logits=logits
    )
    return tf.reduce_mean(per_pixel, axis=[1, 2])
