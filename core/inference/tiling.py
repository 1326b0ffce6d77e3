"""Run a network on images of any size: pad images to a size that the network accepts, or cut them into tiles.

For padding, `multiple` finds the number that must divide the height and the width of the network's input. It
runs the network's forward pass, so that no network has to declare this number. Tiles also need the radius of
the receptive field, which `receptive_field.radius` measures.
"""

import numpy as np
import tensorflow as tf

from core.lowering import winograd
from core.runtime.errors import InputError


def multiple(forward, weights):
    """Return the smallest power of two that must divide the height and width of the network's input.

    Tries the powers 1, 2, 4, ... 512 in this order: runs the network on a square image whose side is three
    times the power, and returns the power if the logits have the size of the image. A power is too small if
    the network halves an odd side. Then the feature maps of a skip connection differ in size and the forward
    pass raises an exception, or the logits have another size. Raises InputError if all powers are too small.
    If a network resizes feature maps to the size of another map, it accepts sides that its strides do not
    divide. Then this function returns a number that is too small for tiles. `receptive_field.radius` detects
    this.
    forward: a function (weights, images) -> logits. weights: name -> tensor.
    """
    for power in 2 ** np.arange(10):
        images = tf.zeros([1, 3 * power, 3 * power, 3])
        try:
            if forward(weights, images).shape[1:3] == images.shape[1:3]:
                return int(power)
            reason = "the logits do not have the height and width of the input"
        except (tf.errors.ResourceExhaustedError, tf.errors.InternalError):  # the device's memory is full
            raise
        except (ValueError, tf.errors.OpError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise InputError(
        "the network returns no logits of the right size for square images of 3 to 1,536 pixels"
        f" ({reason}); correct the forward pass."
    )


def padded(forward, multiple):
    """Wrap a forward pass so that it accepts images of any size, and return the wrapped function.

    The wrapped function pads images at the bottom and on the right, by repeating the last row and the last
    column until `multiple` divides height and width. After the forward pass, it crops the logits to the
    images' original size. forward: a function (weights, images, **options) -> logits.
    """

    def any_size(weights, images, **options):
        _, height, width, _ = tf.unstack(tf.shape(images))
        for axis, length in ((1, height), (2, width)):
            places = tf.range(-(-length // multiple) * multiple)  # length rounded up to a multiple
            images = tf.gather(images, tf.minimum(places, length - 1), axis=axis)
        return forward(weights, images, **options)[:, :height, :width]

    return any_size


def mirrored(forward):
    """Wrap a forward pass so that it averages the logits of an image and of its mirror image.

    In the mirror image, left and right are exchanged. The logits of the mirror image are mirrored back before
    the average is computed, in float32. Returns the wrapped function. forward: a function (weights, images,
    **options) -> logits.
    """

    def both_ways(weights, images, **options):
        logits = forward(weights, images, **options)
        mirror = tf.reverse(forward(weights, tf.reverse(images, axis=[2]), **options), axis=[2])
        return (tf.cast(logits, tf.float32) + tf.cast(mirror, tf.float32)) / 2

    return both_ways


def spans(length, tile, overlap, align=1):
    """Divide one axis of an image into tiles; return a list of tuples (origin, start, stop), one per tile.

    All numbers are in pixels. length: the length of the axis. tile: the length of a tile.
    The network receives the pixels [origin, origin + tile), as far as the axis contains them. The outputs for
    the pixels [start, stop) are kept, and the outputs for the other pixels of the tile are discarded. The
    kept intervals of all tiles together cover the axis without overlap.
    overlap: the kept outputs are at least this far from the ends of the tile, except at the ends of the axis.
    align: every origin is a multiple of this number. If there is more than one tile, the caller must ensure
    that tile - 2 * overlap >= align. Otherwise the distance between two origins would be 0.
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

    The tiles come row by row, from left to right in each row.
    rows, columns: slices that select the part of the image to which the results belong. The parts of all
    tiles together cover the image without overlap.
    results: the list of arrays that the function returns for the tile, each cropped to this part:
    [rows, columns, ...].

    function: pixels uint8 [h, w, 3] -> list of arrays [h, w, ...].
    crop: a function that reads a part of the image: (top, left, bottom, right) -> uint8
    [bottom - top, right - left, 3]. height, width: the size of the image in pixels.
    overlap: the radius of the receptive field in pixels. It is rounded up to a multiple of `multiple`; below,
    "overlap" means the rounded number. Results closer than the overlap to the edge of a tile are discarded,
    unless the edge is a border of the image.
    tile: the side of a tile in pixels, which must be above 2 * overlap. The function uses the smallest
    multiple of 4 * multiple that is at least tile and at least 2 * overlap + 4 * multiple.
    multiple: the number that must divide the sides of the network's input. `function` must pad its argument,
    because the sides of a tile at the bottom or on the right of the image may not be divisible.

    Each tile begins at an image row whose index is a multiple of 4 * multiple. Therefore the Winograd
    convolution (`core.lowering`) divides a tile into the same windows of four rows as the whole image, at
    each resolution of the network. Different windows would cause different rounding errors. Raises InputError
    if tile is at most 2 * overlap.
    """
    align = winograd.OUTPUT_ROWS * multiple
    overlap, *sizes = (-(-size // multiple) * multiple for size in (overlap, height, width))
    if tile <= 2 * overlap:
        raise InputError(
            f"--tile: must be above {2 * overlap} pixels, twice the radius of this network's receptive field"
            f" after rounding up to a multiple of {multiple}."
        )
    tile = -(-max(tile, 2 * overlap + align) // align) * align
    for top, first_row, last_row in spans(sizes[0], tile, overlap, align):
        for left, first_column, last_column in spans(sizes[1], tile, overlap, multiple):
            pixels = crop(top, left, min(top + tile, height), min(left + tile, width))
            rows = slice(first_row, min(last_row, height))
            columns = slice(first_column, min(last_column, width))
            kept = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            yield rows, columns, [output[kept] for output in function(pixels)]
