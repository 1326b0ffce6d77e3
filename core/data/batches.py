"""Decoded examples -> batches, in an order that follows from (seed, epoch) alone."""

import numpy as np
import tensorflow as tf


def training(examples, batch_size, *, seed, epoch, first_step=0, augment=None):
    """`tf.data.Dataset` of (images, masks) from step first_step of an epoch on.

    The whole set is shuffled anew each epoch; the last batch may be smaller.
    images: uint8 [B, H, W, 3], masks: uint8 [B, H, W]. What augment does to an
    example follows from (seed, epoch, example).
    """
    order = np.random.default_rng([seed, epoch]).permutation(examples.rows)
    data = _read(examples, order[first_step * batch_size :])
    if augment:

        def augmented(image, mask, row):
            row_seed = tf.random.experimental.stateless_fold_in([seed, epoch], row)
            return *augment(image, mask, row_seed), row

        data = data.map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
    return _batched(data, batch_size)


def evaluation(examples, batch_size):
    """`tf.data.Dataset` of (images, masks) in a fixed order; the last batch may be smaller."""
    return _batched(_read(examples, examples.rows), batch_size)


def _read(examples, rows):
    """`tf.data.Dataset` of (image, mask, row)."""

    def read(row):
        image, mask = tf.numpy_function(
            lambda row: (np.asarray(examples.images[row]), np.asarray(examples.masks[row])),
            [row],
            [tf.uint8, tf.uint8],
            stateful=False,
        )
        image.set_shape(examples.images.shape[1:])
        mask.set_shape(examples.masks.shape[1:])
        return image, mask, row

    return tf.data.Dataset.from_tensor_slices(rows).map(read)


def _batched(data, batch_size):
    return data.map(lambda image, mask, row: (image, mask)).batch(batch_size).prefetch(2)
