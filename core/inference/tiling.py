"""Run a network on images of any size: pad images to a size that the network accepts, or cut them into tiles.

Padding needs the number that must divide the image's sides, and tiles need the radius of the receptive
field. `multiple` and `receptive_field_radius` find them by running the network's forward pass, so that no
network has to state them.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.lowering import winograd
from core.runtime.errors import InputError

# The largest length, in pixels, of the images that `receptive_field_radius` runs the network on. It cannot
# measure a radius above half of this length.
LARGEST_PROBE = 8192


def multiple(forward, weights):
    """Return the smallest power of two that must divide the height and width of the network's input.

    Tries the powers 1, 2, 4, ... 512 in this order: runs the network on a square image whose side is three
    times the power. If the network halves an odd side, the sizes of a skip connection do not match, and the
    forward pass raises an exception. Then the next power is tried. Raises InputError if all powers fail.
    """
    for side in 2 ** np.arange(10):
        images = tf.zeros([1, 3 * side, 3 * side, 3])
        try:
            if forward(weights, images).shape[1:3] == images.shape[1:3]:
                return int(side)
        except (ValueError, tf.errors.OpError):
            pass
    raise InputError(
        "the network's logits do not have the height and width of its input, for any of the square images of"
        " 3 to 1,536 pixels that were tried; correct the forward pass."
    )


def receptive_field_radius(forward, weights, multiple):
    """Return the radius of the network's receptive field, in pixels.

    The radius is the largest distance, along one axis, between an output pixel and an input pixel that the
    output depends on. To measure it, the network runs with `probe_weights` on a black image in which one
    row, or one column, is bright. The farthest output that changes gives the radius. Because pooling makes
    the result depend on the position of the bright line, `multiple` consecutive positions are tried.
    Raises InputError if the radius is too large to be measured, or if no output changes.
    """
    probe = probe_weights(weights)
    width = 16 * multiple
    while width <= LARGEST_PROBE:
        distance = np.arange(width) - (width // 2 + np.arange(multiple)[:, None])  # from the bright line
        changed = [_changed(forward, probe, distance == 0, axis) for axis in (1, 2)]
        if not all(map(np.any, changed)):
            raise InputError(
                "--tile: must be at least the image's size, because the radius of this network's receptive"
                " field cannot be measured: a bright line in the input changed no output."
            )
        farthest = max(np.abs(distance[each]).max() for each in changed)
        if farthest + multiple < width // 2:
            return int(farthest)
        width *= 2
    raise InputError(
        "--tile: must be at least the image's size, because this network's outputs depend on inputs"
        f" {farthest} pixels away."
    )


def padded(forward, multiple):
    """Wrap a forward pass so that it accepts images of any size, and return the wrapped function.

    The function pads the images by repeating their last row and column, until `multiple` divides their
    height and width. It crops the logits to the images' original size.
    """

    def any_size(weights, images, **options):
        _, height, width, _ = tf.unstack(tf.shape(images))
        for axis, length in ((1, height), (2, width)):
            places = tf.range(-(-length // multiple) * multiple)  # length rounded up to a multiple
            images = tf.gather(images, tf.minimum(places, length - 1), axis=axis)
        return forward(weights, images, **options)[:, :height, :width]

    return any_size


def mirrored(forward):
    """Wrap a forward pass so that it averages the logits of an image and of its mirror image, in float32.

    The logits of the mirror image are mirrored back first. Returns the wrapped function.
    """

    def both_ways(weights, images, **options):
        logits = forward(weights, images, **options)
        mirror = tf.reverse(forward(weights, tf.reverse(images, axis=[2]), **options), axis=[2])
        return (tf.cast(logits, tf.float32) + tf.cast(mirror, tf.float32)) / 2

    return both_ways


def spans(length, tile, overlap, align=1):
    """Divide one axis of an image into tiles; return a list of tuples (origin, start, stop), one per tile.

    length: the length of the axis. tile: the length of a tile. All numbers are in pixels.
    The network receives the tile [origin, origin + tile), and its outputs for [start, stop) are kept. The
    kept outputs cover the axis once. They are at least `overlap` away from the ends of the tile, except
    where the tile ends at the border of the image. Every origin is a multiple of `align`. Requires
    tile - 2 * overlap >= align.
    """
    if length <= tile:
        return [(0, 0, length)]
    stride = (tile - 2 * overlap) // align * align
    last = -(-(length - tile) // align) * align
    origins = [*range(0, last, stride), last]
    stops = [*(origin + tile - overlap for origin in origins[:-1]), length]
    return list(zip(origins, [0, *stops], stops))


def tiled(function, crop, height, width, *, tile, overlap, multiple):
    """Apply a function to an image in overlapping tiles; yield (rows, columns, results) for each tile.

    The tiles come row by row, from left to right. rows, columns: slices of the image, the part of it that
    the results belong to. The parts cover the image once. results: a list of arrays, one for each array
    that the function returns, cut to this part: [rows, columns, ...].

    function: pixels uint8 [h, w, 3] -> list of arrays [h, w, ...].
    crop: a function that reads a part of the image: (top, left, bottom, right) -> uint8
    [bottom - top, right - left, 3]. height, width: the size of the image.
    overlap: the radius of the receptive field in pixels. Results closer than this to the edge of a tile are
    discarded, unless the edge is a border of the image. The overlap is rounded up to a multiple of
    `multiple`.
    tile: the side of a tile in pixels. The side is increased to at least twice the overlap plus
    4 * multiple, and rounded up to a multiple of 4 * multiple.

    The top of each tile is at a multiple of 4 * multiple. Then the Winograd convolution (`core.lowering`)
    divides a tile into the same windows of four rows as the whole image, at each level of the network.
    Other windows would give other rounding errors.
    Raises InputError if the tile is not larger than twice the overlap.
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
    """Return weights, name -> tensor, with which a bright input pixel changes every output it can reach.

    They replace the network's own weights. All kernels are positive, so that no ReLU sets the change to
    zero and changes do not cancel. Weights whose names end in bias, beta or mean are zero, so that the
    activations of a black image are zero. All other weights are one.
    """
    return {name: _probe_weight(name, variable) for name, variable in weights.items()}


def _probe_weight(name, variable):
    """Return the replacement for one weight. A kernel gets one positive value, smaller for larger kernels."""
    if len(variable.shape) == 4:
        height, width, *channels = variable.shape
        return tf.fill(variable.shape, 1 / (height * width * min(channels)))
    return tf.zeros_like(variable) if name.endswith(("bias", "beta", "mean")) else tf.ones_like(variable)


def _changed(forward, probe, bright, axis):
    """Return where the outputs change if a line of a black image is made bright: bool [multiple, length].

    bright: bool [multiple, length]: image i has its bright line at the position where bright[i] is True.
    axis: the axis along which positions are counted. 1: the lines are rows. 2: the lines are columns.
    """
    # The images have `length` pixels along this axis, and only `multiple` along the other axis.
    stripes = np.repeat(bright[:, None, :, None], len(bright), axis=1)  # [B, multiple, length, 1]
    images = 1000 * np.repeat(stripes, 3, axis=3).astype(np.float32).swapaxes(2, axis)
    with lowering.disabled():
        black = forward(probe, tf.zeros_like(images[:1]))
        return np.any(forward(probe, tf.constant(images)) != black, axis=(3 - axis, 3))
