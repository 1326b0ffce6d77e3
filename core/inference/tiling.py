"""Run a network on images of any size: pad images to a size that the network accepts, or cut them into tiles.

For padding, `multiple` finds the number that must divide the height and the width of the network's input.
For tiles, `receptive_field_radius` measures the radius of the receptive field. Both functions run the
network's forward pass, so that no network has to declare these numbers.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.lowering import winograd
from core.runtime.errors import InputError

# The largest length, in pixels, of the images on which `receptive_field_radius` runs the network. A radius of
# half of this length or more cannot be measured.
LARGEST_PROBE = 8192


def multiple(forward, weights):
    """Return the smallest power of two that must divide the height and width of the network's input.

    Tries the powers 1, 2, 4, ... 512 in this order: runs the network on a square image whose side is three
    times the power, and returns the power if the logits have the size of the image. A power is too small if
    the network halves an odd side. Then the feature maps of a skip connection differ in size and the forward
    pass raises an exception, or the logits have another size. Raises InputError if all powers are too small.
    If a network resizes feature maps to the size of a skip connection, it accepts sides that its strides do
    not divide. The result is then too small, and the logits of tiles differ from the logits of the whole
    image.
    forward: a function (weights, images) -> logits. weights: name -> tensor.
    """
    for power in 2 ** np.arange(10):
        images = tf.zeros([1, 3 * power, 3 * power, 3])
        try:
            if forward(weights, images).shape[1:3] == images.shape[1:3]:
                return int(power)
            reason = "the logits do not have the height and width of the input"
        except (ValueError, tf.errors.OpError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise InputError(
        "the network returns no logits of the right size for square images of 3 to 1,536 pixels"
        f" ({reason}); correct the forward pass."
    )


def receptive_field_radius(forward, weights, multiple):
    """Return the radius of the network's receptive field, in pixels.

    An output pixel depends on the input pixels around it. The radius is the largest distance, along one axis,
    between an output pixel and an input pixel on which the output pixel depends.

    To measure the radius, the network runs with `probe_weights` on a black image, and on images that are
    black except for one bright row or column. The radius is the distance from the bright line to the farthest
    output pixel that it changes. Because pooling makes this distance depend on the position of the line,
    `multiple` consecutive positions are tried, and the largest distance is returned.

    forward: a function (weights, images) -> logits. weights: name -> tensor. multiple: the number that the
    function `multiple` returns.
    Raises InputError if the radius is too large to be measured, or if no output pixel changes.
    """
    probe = probe_weights(weights)
    width = 16 * multiple
    while width <= LARGEST_PROBE:
        # [multiple, width]: for each image, the distance of each position from the bright line. The distance
        # is negative before the line.
        distance = np.arange(width) - (width // 2 + np.arange(multiple)[:, None])
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
    overlap: the radius of the receptive field in pixels, which is rounded up to a multiple of `multiple`.
    Results closer than the overlap to the edge of a tile are discarded, unless the edge is a border of the
    image.
    tile: the side of a tile in pixels. A side below 2 * overlap + 4 * multiple is raised to this number. Then
    the side is rounded up to a multiple of 4 * multiple.
    multiple: the number that must divide the sides of the network's input. `function` must pad its argument,
    because the sides of a tile at the bottom or on the right of the image may not be divisible.

    Each tile begins at an image row whose index is a multiple of 4 * multiple. Therefore the Winograd
    convolution (`core.lowering`) divides a tile into the same windows of four rows as the whole image, at
    each resolution of the network. Different windows would cause different rounding errors. Raises InputError
    if tile is not larger than twice the overlap.
    """
    align = winograd.OUTPUT_ROWS * multiple
    overlap, *padded = (-(-size // multiple) * multiple for size in (overlap, height, width))
    if tile <= 2 * overlap:
        raise InputError(
            f"--tile: must be above {2 * overlap} pixels, twice the radius of this network's receptive field"
            f" after rounding up to a multiple of {multiple}."
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
    """Return weights with which a bright input pixel changes every output pixel that depends on it.

    The returned dict, name -> tensor, replaces the network's own weights. The values of kernels, which are
    the weights with four axes, are positive. So no ReLU sets a change to zero, and changes of several
    activations do not cancel. Weights whose names end in bias, beta or mean are zero, so that the activations
    of a black image are zero. All other weights are one.
    weights: the network's own weights, name -> tensor.
    """
    return {name: _probe_weight(name, variable) for name, variable in weights.items()}


def _probe_weight(name, variable):
    """Return the replacement for the weight `name`. The values of a kernel are positive random numbers.

    The values differ, because a normalisation over channels has constant outputs if all channels are equal.
    The values are smaller for larger kernels, so that the activations of deep networks do not overflow.
    """
    if len(variable.shape) == 4:
        height, width, *channels = variable.shape
        factors = tf.random.stateless_uniform(variable.shape, [0, 0], 0.5, 1.5)
        return factors / (height * width * min(channels))
    return tf.zeros_like(variable) if name.endswith(("bias", "beta", "mean")) else tf.ones_like(variable)


def _changed(forward, probe, bright, axis):
    """Find the output pixels that change if one line of a black image is made bright.

    Runs the network on B images with one bright line each, and on a black image. Returns bool [B, length]:
    element [i, p] is True if, at position p, the outputs for image i and the black image differ.
    forward: a function (weights, images) -> logits. probe: the result of `probe_weights`.
    bright: bool [B, length]: the bright line of image i is at the position where bright[i] is True. B is
    equal to the number that the function `multiple` returns.
    axis: the axis along which positions are counted. 1: the lines are rows. 2: the lines are columns.
    """
    # The images have `length` pixels along `axis`, but only B pixels along the other axis.
    stripes = np.repeat(bright[:, None, :, None], len(bright), axis=1)  # [B, B, length, 1]
    images = 1000 * np.repeat(stripes, 3, axis=3).astype(np.float32).swapaxes(2, axis)
    with tf.device("CPU:0"), lowering.disabled():  # on a GPU, rounding may depend on the batch size
        black = forward(probe, tf.zeros_like(images[:1]))
        return np.any(forward(probe, tf.constant(images)) != black, axis=(3 - axis, 3))
