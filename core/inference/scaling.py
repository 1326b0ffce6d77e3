"""Scale images to a network's training size, and logits back to the images' size."""

import numpy as np
import tensorflow as tf
from PIL import Image

from core.runtime.errors import InputError

STRIP_VALUES = 2**20  # values per strip of logits: 4 MiB, but several times as much while it is computed


def logit_strips(logits, height, width):
    """Yield strips float32 [rows, width, C], from top to bottom, of logits [h, w, C] scaled bilinearly.

    The values equal `tf.image.resize(logits, [height, width])`, with half-pixel centres, but
    only one strip is in memory at a time.
    """
    upper, lower, down = _neighbours(height, logits.shape[0])
    left, right, across = _neighbours(width, logits.shape[1])
    rows = max(1, STRIP_VALUES // (width * logits.shape[2]))
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        first = upper[part][0]
        source = logits[first : lower[part][-1] + 1]
        source = _between(source[:, left], source[:, right], across[:, None])
        above, below = source[upper[part] - first], source[lower[part] - first]
        yield _between(above, below, down[part, None, None])


def resize_images(images, side, resample):
    """Scale images float32 [B, H, W, 3] of integer values to [B, side, side, 3], in a graph.

    resample: Pillow's NEAREST or BILINEAR. The values equal those of Pillow's `resize`, except for
    rounding differences of one level where a mean lies halfway between two levels. Uses only ops
    that TensorFlow Lite supports. Raises InputError for other filters.
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
    """Return the interpolation weights, float32 [new, old], of the old positions for each new position.

    When scaling down, the triangle filter is widened by the scale, as in Pillow, to avoid aliasing.
    """
    scale = tf.cast(old, tf.float32) / new
    centres = (tf.range(new, dtype=tf.float32)[:, None] + 0.5) * scale
    distance = tf.abs(tf.cast(tf.range(old), tf.float32) + 0.5 - centres) / tf.maximum(scale, 1)
    weights = tf.nn.relu(1 - distance)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _neighbours(size, old):
    """Return, for each new position, the two nearest old positions and the weight of the second, float32."""
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(old / size) - np.float32(
        0.5
    )
    below = np.floor(position)
    first = np.maximum(below, 0).astype(int)
    second = np.minimum(np.ceil(position), old - 1).astype(int)
    return first, second, position - below


def _between(first, second, weight):
    return first + (second - first) * weight
