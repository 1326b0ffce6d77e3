"""Run a network on images of any size: pad small ones to a valid size, process large ones in tiles.

`multiple` and `receptive_field_radius` find the network's properties by running its forward
pass, so no network has to state them.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.lowering import winograd
from core.runtime.errors import InputError

LARGEST_PROBE = 8192  # side of the probe in pixels; tiles are impossible for a radius above half of it


def multiple(forward, weights):
    """Return the power of two that must divide the height and width of the network's input.

    Tries sides of three times each power of two. If the network halves an odd side, its skip
    connection has another size and the forward pass raises. Raises InputError beyond 512.
    """
    for side in 2 ** np.arange(10):
        images = tf.zeros([1, 3 * side, 3 * side, 3])
        try:
            if forward(weights, images).shape[1:3] == images.shape[1:3]:
                return int(side)
        except (ValueError, tf.errors.OpError):
            pass
    raise InputError(
        "the network returns no logits of its input's size for square images of up to 1,536 pixels."
    )


def receptive_field_radius(forward, weights, multiple):
    """Return the largest distance, in pixels along an axis, between an output and an input it depends on.

    With `probe_weights`, one row and then one column of a black image is made bright, at each position
    modulo `multiple`; the farthest output that changes gives the radius. Raises InputError if the radius
    has no bound or no output changes.
    """
    probe = probe_weights(weights)
    width = 16 * multiple
    while width <= LARGEST_PROBE:
        distance = np.arange(width) - (width // 2 + np.arange(multiple)[:, None])  # from the bright line
        changed = [_changed(forward, probe, distance == 0, axis) for axis in (1, 2)]
        if not all(map(np.any, changed)):
            raise InputError(
                "--tile: must be at least the image's size: the receptive field is unknown, because the"
                " probe changed no output."
            )
        farthest = max(np.abs(distance[each]).max() for each in changed)
        if farthest + multiple < width // 2:
            return int(farthest)
        width *= 2
    raise InputError(
        f"--tile: must be at least the image's size: this network's outputs depend on inputs {farthest}"
        " pixels away."
    )


def padded(forward, multiple):
    """Return a forward pass for images of any size: pads below and right, and crops the logits.

    The padding repeats the last row and column.
    """

    def any_size(weights, images, **options):
        _, height, width, _ = tf.unstack(tf.shape(images))
        for axis, length in ((1, height), (2, width)):
            places = tf.range(-(-length // multiple) * multiple)
            images = tf.gather(images, tf.minimum(places, length - 1), axis=axis)
        return forward(weights, images, **options)[:, :height, :width]

    return any_size


def mirrored(forward):
    """Return a forward pass that averages the logits of an image and of its mirror image, in float32."""

    def both_ways(weights, images, **options):
        logits = forward(weights, images, **options)
        mirror = tf.reverse(forward(weights, tf.reverse(images, axis=[2]), **options), axis=[2])
        return (tf.cast(logits, tf.float32) + tf.cast(mirror, tf.float32)) / 2

    return both_ways


def spans(length, tile, overlap, align=1):
    """Return the tiles along one axis as tuples (origin, start, stop).

    The network receives the inputs origin..origin + tile, and the outputs start..stop are kept. Outputs
    closer than `overlap` to a cut edge are discarded. Every origin is a multiple of align.
    Requires tile - 2 * overlap >= align.
    """
    if length <= tile:
        return [(0, 0, length)]
    stride = (tile - 2 * overlap) // align * align
    last = -(-(length - tile) // align) * align
    origins = [*range(0, last, stride), last]
    stops = [*(origin + tile - overlap for origin in origins[:-1]), length]
    return list(zip(origins, [0, *stops], stops))


def tiled(function, crop, height, width, *, tile, overlap, multiple):
    """Process an image in tiles: yield (rows, columns, list of arrays [rows, columns, ...]), row by row.

    function: pixels uint8 [h, w, 3] -> list of arrays [h, w, ...]. crop: (top, left, bottom, right)
    -> uint8 [bottom - top, right - left, 3]. overlap is rounded up to a multiple of `multiple`. The tile
    is rounded up to a multiple of 4 * multiple, and exceeds twice the overlap by at least that much.
    Tiles start at rows that are multiples of 4 * multiple, so that at each level of the network the
    windows of the Winograd convolution (`core.lowering`) are the same as in the whole image: other
    windows would round differently. Raises InputError if the overlap leaves no output of a tile.
    """
    align = winograd.WINDOW * multiple
    overlap, *padded = (-(-size // multiple) * multiple for size in (overlap, height, width))
    if tile <= 2 * overlap:
        raise InputError(
            f"--tile: must be above {2 * overlap} pixels, twice the radius of this network's receptive field."
        )
    tile = -(-max(tile, 2 * overlap + align) // align) * align
    for top, first_row, last_row in spans(padded[0], tile, overlap, align):
        for left, first_column, last_column in spans(padded[1], tile, overlap, multiple):
            pixels = crop(top, left, min(top + tile, height), min(left + tile, width))
            rows = slice(first_row, min(last_row, height))
            columns = slice(first_column, min(last_column, width))
            kept = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            yield rows, columns, [output[kept] for output in function(pixels)]


def probe_weights(weights):
    """Return replacements for a network's weights, with which no layer blocks a bright pixel.

    Kernels are positive. Weights whose names end in bias, beta or mean are zero, so that a black image
    stays black; all other weights are one.
    """
    return {name: _probe_weight(name, variable) for name, variable in weights.items()}


def _probe_weight(name, variable):
    if len(variable.shape) == 4:
        height, width, *channels = variable.shape
        return tf.fill(variable.shape, 1 / (height * width * min(channels)))
    return tf.zeros_like(variable) if name.endswith(("bias", "beta", "mean")) else tf.ones_like(variable)


def _changed(forward, probe, bright, axis):
    """Return which outputs change with each bright line: bool [multiple, length], like bright."""
    stripes = np.repeat(bright[:, None, :, None], len(bright), axis=1)  # [B, multiple, length, 1]
    images = 1000 * np.repeat(stripes, 3, axis=3).astype(np.float32).swapaxes(2, axis)
    with lowering.disabled():
        black = forward(probe, tf.zeros_like(images[:1]))
        return np.any(forward(probe, tf.constant(images)) != black, axis=(3 - axis, 3))
