"""Random changes of one example, each a pure function of its seed.

image: [H, W, 3]; mask: class ids [H, W]; seed: int [2]. Where one change follows
another, the caller splits the seed.
"""

import tensorflow as tf


def flip(image, mask, seed):
    """Left and right exchanged, in one of two cases."""
    if tf.random.stateless_uniform([], seed) < 0.5:
        return tf.reverse(image, axis=[1]), tf.reverse(mask, axis=[1])
    return image, mask


def random_crop(image, mask, seed, *, size):
    """A square of size x size pixels from anywhere in the image."""
    room = tf.shape(image)[:2] - size + 1  # places for the upper left corner
    place = tf.random.stateless_uniform([2], seed) * tf.cast(room, tf.float32)
    top, left = tf.unstack(tf.cast(place, tf.int32))
    window = slice(top, top + size), slice(left, left + size)
    return tf.ensure_shape(image[window], [size, size, 3]), tf.ensure_shape(mask[window], [size, size])
