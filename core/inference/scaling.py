"""Scaling between an image's size and the size that a network was trained at."""

import numpy as np

STRIP_VALUES = 2**22  # float32 values of a strip of logits: 16 MiB


def logit_strips(logits, height, width):
    """Yield float32 [rows, width, C], from the top: logits [h, w, C] scaled bilinearly.

    The values are those of `tf.image.resize(logits, [height, width])`, with half-pixel centres, but
    only a strip of them is in memory at a time.
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


def _neighbours(size, old):
    """For each of size positions, the two nearest of old positions, and the second's weight, float32."""
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(old / size) - np.float32(
        0.5
    )
    below = np.floor(position)
    first = np.maximum(below, 0).astype(int)
    second = np.minimum(np.ceil(position), old - 1).astype(int)
    return first, second, position - below


def _between(first, second, weight):
    return first + (second - first) * weight
