"""Scale images to the size of a run's validation images, and scale logits to the size of an image."""

import numpy as np
import tensorflow as tf
from PIL import Image

from core.runtime.errors import InputError

# The largest number of float32 values in a strip of logits: 4 MiB. If a row has more values, a strip is one
# row. Computing a strip needs several times the memory of the strip.
STRIP_VALUES = 2**20


def logit_strips(logits, height, width):
    """Scale logits bilinearly to height x width; yield the result in strips, float32 [rows, width, C].

    logits: float32 array [h, w, C]. A strip is a block of consecutive rows. The strips come from top to
    bottom. Concatenated, they equal `tf.image.resize(logits, [height, width])` up to rounding. The function
    holds one strip in memory at a time.
    """
    upper, lower, down = _neighbours(height, logits.shape[0])
    left, right, across = _neighbours(width, logits.shape[1])
    rows = max(1, STRIP_VALUES // (width * logits.shape[2]))
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        first = upper[part][0]
        source = logits[first : lower[part][-1] + 1]  # the rows of logits that this strip depends on
        source = _between(source[:, left], source[:, right], across[:, None])  # [rows of source, width, C]
        above, below = source[upper[part] - first], source[lower[part] - first]
        yield _between(above, below, down[part, None, None])


def resize_images(images, side, resample):
    """Scale images to float32 [B, side, side, 3] like Pillow's `resize`, but with TensorFlow ops.

    images: float32 [B, H, W, 3] with integer values 0..255. resample: the filter, `Image.Resampling.NEAREST`
    or `Image.Resampling.BILINEAR`. Raises InputError for other filters. The values of the result are
    integers. With NEAREST, they equal Pillow's values if `side` is a power of two. For other sides, Pillow
    may take the previous row or column where a position lies exactly between two pixels, because Pillow
    rounds positions. With BILINEAR, this function and Pillow compute weighted means and round them. A value
    may differ from Pillow's value by 1 if a mean is near the midpoint of two integers. TensorFlow Lite
    supports all ops that this function uses.
    """
    _, height, width, _ = tf.unstack(tf.shape(images))
    if resample == Image.Resampling.NEAREST:
        rows, columns = (((2 * tf.range(side) + 1) * old) // (2 * side) for old in (height, width))
        return tf.gather(tf.gather(images, rows, axis=1), columns, axis=2)
    if resample != Image.Resampling.BILINEAR:
        raise InputError(
            f"--scaling=train: the filter {resample.name} is not available in exports; take --scaling=none."
        )
    x = tf.floor(tf.tensordot(_triangle_filter(width, side), images, [[1], [2]]) + 0.5)  # [side, B, H, 3]
    x = tf.floor(tf.tensordot(_triangle_filter(height, side), x, [[1], [2]]) + 0.5)  # [side, side, B, 3]
    return tf.transpose(x, [2, 0, 1, 3])


def _triangle_filter(old, new):
    """Return the matrix, float32 [new, old], that scales a line of `old` pixels to `new` pixels.

    Row i holds the weights with which the old pixels are averaged to give new pixel i. The weights in a row
    sum to 1. If the line shrinks, the triangle filter is widened by the factor old / new to avoid aliasing,
    as in Pillow.
    """
    scale = tf.cast(old, tf.float32) / new
    centres = (tf.range(new, dtype=tf.float32)[:, None] + 0.5) * scale
    distance = tf.abs(tf.cast(tf.range(old), tf.float32) + 0.5 - centres) / tf.maximum(scale, 1)
    weights = tf.nn.relu(1 - distance)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _neighbours(size, old):
    """Return the indices and weights that scale a line of `old` pixels linearly to `size` pixels.

    Returns (first, second, weight): int [size], int [size] and float32 [size]. Pixel i of the scaled line is
    (1 - weight[i]) * line[first[i]] + weight[i] * line[second[i]]. Pixel centres lie at half-integers, as in
    `tf.image.resize`.
    """
    position = (np.arange(size, dtype=np.float32) + 0.5) * (old / size) - 0.5
    below = np.floor(position)
    first = np.maximum(below, 0).astype(int)
    second = np.minimum(np.ceil(position), old - 1).astype(int)
    return first, second, position - below


def _between(first, second, weight):
    """Interpolate linearly between arrays: the result is `first` for weight 0 and `second` for weight 1."""
    return first + (second - first) * weight
