"""Images of any size through a network: padded to its multiple, in tiles if large.

What a network needs for it, its multiple and its reach, is found by running its
forward pass; no network has to state it.
"""

import numpy as np
import tensorflow as tf

from core.lowering import fast_convolution
from core.runtime.errors import InputError

LARGEST_PROBE = 8192  # pixels; a network that reaches across half of it takes no tiles


def multiple(forward, weights):
    """The power of two that the height and width of a network's input are multiples of.

    Tried from 1 on at three times each: where a level of the network would halve
    an odd size, its skip does not fit. Raises InputError if 512 does not do.
    """
    for side in 2 ** np.arange(10):
        images = tf.zeros([1, 3 * side, 3 * side, 3])
        try:
            if forward(weights, images).shape[1:3] == images.shape[1:3]:
                return int(side)
        except (ValueError, tf.errors.OpError):
            pass
    raise InputError("the network gives no square image of up to 1,536 pixels back at its own size.")


def receptive_field_radius(forward, weights, multiple):
    """How far from an output, in pixels along a side, lies the farthest input it depends on.

    Tried on weights of the same names and shapes: positive kernels; zeros where the
    name ends in bias, beta or mean; ones for all others, so that nothing shuts a
    way. They keep a black image black, and carry light as far
    as the layers go. One row or column of a black image is lit, at each place
    within a multiple, and the farthest output counted that is not as before.
    Raises InputError if there is no end to it, or nothing comes through.
    """
    probe = {name: _transparent(name, variable) for name, variable in weights.items()}
    width = 16 * multiple
    while width <= LARGEST_PROBE:
        distance = np.arange(width) - (width // 2 + np.arange(multiple)[:, None])  # from the lit one
        changed = [_changed(forward, probe, distance == 0, axis) for axis in (1, 2)]
        if not all(map(np.any, changed)):
            raise InputError("--tile: must hold the whole image: nothing tells how far this network sees.")
        farthest = max(np.abs(distance[each]).max() for each in changed)
        if farthest + multiple < width // 2:
            return int(farthest)
        width *= 2
    raise InputError(
        f"--tile: must hold the whole image: this network's outputs depend on inputs {farthest} pixels away."
    )


def padded(forward, multiple):
    """The forward pass for images of any size: padded below and right, the logits cut back.

    Padding repeats the last row and column.
    """

    def any_size(weights, images, **options):
        _, height, width, _ = tf.unstack(tf.shape(images))
        for axis, length in ((1, height), (2, width)):
            places = tf.range(-(-length // multiple) * multiple)
            images = tf.gather(images, tf.minimum(places, length - 1), axis=axis)
        return forward(weights, images, **options)[:, :height, :width]

    return any_size


def mirrored(forward):
    """The mean of the logits of an image and, turned back, of its mirror image; float32."""

    def both_ways(weights, images, **options):
        logits = forward(weights, images, **options)
        mirror = tf.reverse(forward(weights, tf.reverse(images, axis=[2]), **options), axis=[2])
        return (tf.cast(logits, tf.float32) + tf.cast(mirror, tf.float32)) / 2

    return both_ways


def spans(length, tile, overlap):
    """Tiles along one side: (origin, start, stop), where outputs start..stop are to be taken.

    Inputs origin..origin + tile make outputs of which those within `overlap` of a
    cut are wrong. All origins are multiples of what length, tile and overlap are.
    """
    if length <= tile:
        return [(0, 0, length)]
    origins = [*range(0, length - tile, tile - 2 * overlap), length - tile]
    stops = [*(origin + tile - overlap for origin in origins[:-1]), length]
    return list(zip(origins, [0, *stops], stops))


def tiled(function, crop, height, width, *, tile, overlap, multiple):
    """Yield (rows, columns, outputs [rows, columns, ...]) that make up a whole image.

    function: images uint8 [1, h, w, 3] -> outputs [1, h, w, ...]. crop: (top, left,
    bottom, right) -> uint8 [bottom - top, right - left, 3]. tile and overlap are
    rounded up to multiples. Raises InputError if the overlap leaves nothing of a tile.
    """
    tile, overlap, *padded = (-(-size // multiple) * multiple for size in (tile, overlap, height, width))
    if tile <= 2 * overlap:
        raise InputError(f"--tile: must be above {2 * overlap} pixels, twice the reach of this network.")
    for top, first_row, last_row in spans(padded[0], tile, overlap):
        for left, first_column, last_column in spans(padded[1], tile, overlap):
            pixels = crop(top, left, min(top + tile, height), min(left + tile, width))
            rows = slice(first_row, min(last_row, height))
            columns = slice(first_column, min(last_column, width))
            outputs = function(pixels[None])[0]
            yield (
                rows,
                columns,
                outputs[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left],
            )


def _transparent(name, variable):
    if len(variable.shape) == 4:
        height, width, *channels = variable.shape
        return tf.fill(variable.shape, 1 / (height * width * min(channels)))
    return tf.zeros_like(variable) if name.endswith(("bias", "beta", "mean")) else tf.ones_like(variable)


def _changed(forward, probe, lit, axis):
    """Which outputs of a stripe are not those of a black one: bool, as lit [multiple, length]."""
    stripes = np.repeat(lit[:, None, :, None], len(lit), axis=1)  # [B, multiple, length, 1]
    images = 1000 * np.repeat(stripes, 3, axis=3).astype(np.float32).swapaxes(2, axis)
    with fast_convolution.plain():
        black = forward(probe, tf.zeros_like(images[:1]))
        return np.any(forward(probe, tf.constant(images)) != black, axis=(3 - axis, 3))
