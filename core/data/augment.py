"""Random augmentations of one example, which is an image with its mask.

Each function returns the changed image and mask. The functions have these arguments:

    image    uint8 [H, W, 3], with a static shape
    mask     uint8 [H, W], class ids
    seed     int [2], which determines the random choices of the function

Unlike a forward pass, these functions may use `if` with tensors: they run eagerly, or in graphs that
AutoGraph converts (`tf.data.Dataset.map` and `core.data.resident`).

A caller that applies several augmentations must pass a different seed to each, so that their random choices
are independent.
"""

import tensorflow as tf


def flip(image, mask, seed):
    """Mirror image and mask horizontally with probability 0.5."""
    if tf.random.stateless_uniform([], seed) < 0.5:
        return tf.reverse(image, axis=[1]), tf.reverse(mask, axis=[1])
    return image, mask


def random_crop(image, mask, seed, *, size):
    """Crop image and mask to a square of size x size pixels at a uniformly random position.

    The image's height and width must be at least size.
    """
    room = tf.shape(image)[:2] - size + 1  # number of possible positions of the crop along each axis
    place = tf.random.stateless_uniform([2], seed) * tf.cast(room, tf.float32)
    top, left = tf.unstack(tf.cast(place, tf.int32))
    window = slice(top, top + size), slice(left, left + size)
    return tf.ensure_shape(image[window], [size, size, 3]), tf.ensure_shape(mask[window], [size, size])


def dihedral(image, mask, seed):
    """Apply one of the eight symmetries of a square (rotations and reflections), each with probability 1/8.

    The image must be square, because some of the symmetries exchange height and width. This augmentation is
    meant for aerial photos, which show the ground from above and so have no preferred direction.
    """
    across, down, transposed = tf.unstack(tf.random.stateless_uniform([3], seed) < 0.5)
    if across:
        image, mask = tf.reverse(image, axis=[1]), tf.reverse(mask, axis=[1])
    if down:
        image, mask = tf.reverse(image, axis=[0]), tf.reverse(mask, axis=[0])
    if transposed:
        image, mask = tf.transpose(image, [1, 0, 2]), tf.transpose(mask)
    return image, mask


def zoom(image, mask, seed):
    """Zoom in: cut a random window and resize it to the size of the image.

    The window's height and width are the image's height and width times one random factor from 0.7 to 1.
    The image is resized bilinearly, the mask by nearest neighbour.
    """
    height, width, _ = image.shape
    draw = tf.random.stateless_uniform([3], seed)
    share = 1 - 0.3 * draw[0]
    size = tf.cast(tf.round(share * [height, width]), tf.int32)
    top, left = tf.unstack(tf.cast(draw[1:] * tf.cast([height, width] - size + 1, tf.float32), tf.int32))
    window = slice(top, top + size[0]), slice(left, left + size[1])
    image, mask = (tf.cast(part[window], tf.float32) for part in (image, mask))  # a GPU cannot resize uint8
    image = tf.image.resize(image, [height, width])
    mask = tf.image.resize(mask[..., None], [height, width], method="nearest")[..., 0]
    return tf.cast(tf.round(image), tf.uint8), tf.cast(mask, tf.uint8)


def colour(image, mask, seed):
    """Multiply the image's brightness, contrast and saturation, each by its own random factor.

    Each factor is from 0.7 to 1.3. The mask is returned unchanged.
    """
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform([3], seed, 0.7, 1.3))
    image = tf.cast(image, tf.float32)
    grey = tf.reduce_mean(image, axis=2, keepdims=True)
    image = grey + saturation * (image - grey)
    mean = tf.reduce_mean(image)
    image = brightness * (mean + contrast * (image - mean))
    return tf.saturate_cast(tf.round(image), tf.uint8), mask


# the augmentations that a user can choose with --augment, by name
BY_NAME = {each.__name__: each for each in (flip, dihedral, zoom, colour)}
