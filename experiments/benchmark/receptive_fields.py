"""Measure the receptive field of each operation of a network: change one line of an image.

The line is one pixel wide. If a pixel of an operation's output changes, the line crosses the receptive field
of this pixel. `core.inference.receptive_field` describes the images and the changed lines.

`experiments.benchmark.operations` defines what an operation is.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.inference import receptive_field, tiling
from experiments.benchmark import operations

LARGEST_PROBE = 2048  # `sides` does not double the length of its images above this number of pixels


def sides(forward, weights):
    """Return a dict: `Operation.index` -> side of the receptive field of the operation's output, in pixels.

    The side is the height or the width of the receptive field, whichever is larger. If the sides differ
    between output pixels, the largest side is returned. The side is None if the receptive field is larger
    than about LARGEST_PROBE pixels, if the output is not a feature map [B, H, W, C], or if no line changes
    the output. All values are None if the network accepts images whose height or width is not divisible by
    the network's strides, because m, see below, is then too small.

    Let m be the result of `tiling.multiple`: the smallest power of two that must divide the height and width
    of the images. Output pixels at a distance of m image pixels have receptive fields of the same size.
    Therefore it is enough to measure lines at m neighbouring positions.
    """
    kinds, multiple = receptive_field.probes(weights), tiling.multiple(forward, weights)
    length = 16 * multiple
    while True:
        by_axis = [_sides(forward, kinds, multiple, length, axis) for axis in (1, 2)]
        found = {index: _larger(*(each[index] for each in by_axis)) for index in by_axis[0]}
        if None not in found.values() or 2 * length > LARGEST_PROBE:
            return found
        length *= 2


def _larger(first, second):
    """Return the larger of two sides; None if one of them is None."""
    return None if None in (first, second) else max(first, second)


def _sides(forward, kinds, multiple, length, axis):
    """Return a dict: `Operation.index` -> size of the receptive field along one axis, in pixels.

    The size is None if `_side` returns None for the operation. kinds: the result of
    `receptive_field.probes`. multiple: as returned by `tiling.multiple`.
    axis: 1 for height, 2 for width. length: the size of the images along this axis, in pixels.
    """
    lines = length // 2 + np.arange(multiple)  # image i has its changed line at lines[i]
    found = {}
    for probe, make_image, tolerance in kinds:
        image = make_image(receptive_field.image_shape(length, multiple, axis))
        images = [receptive_field.with_line(image, place, axis) for place in lines]
        for call, changed in _changed(forward, probe, images, image, tolerance, axis).items():
            found[call] = None if changed is None else changed | found.get(call, False)
    places = [changed.shape[1] for changed in found.values() if changed is not None]
    if length > multiple * min((each for each in places if each > 1), default=length):
        return dict.fromkeys(found)  # a stride does not divide all sides that the network accepts
    return {call: _side(changed, lines, length) for call, changed in found.items()}


def _changed(forward, probe, images, image, tolerance, axis):
    """Return a dict: `Operation.index` -> bool [B, places], or None if the output is not [B, H, W, C].

    Element [i, j] is True if, at place j along the axis, the operation's outputs for images[i] and for image
    differ by more than tolerance times the largest output. images: a list of B arrays like image.
    image: float32 [height, width, 3]. probe: the weights with which the network runs. tolerance: see
    `receptive_field.probes`.
    """

    @tf.function(autograph=False)
    def compare(images):
        with operations.scopes():
            logits = forward(probe, images)
        outputs = {call: ops[-1].outputs[0] for call, ops in operations.by_call(images, logits).items()}
        return {call: differs(y) if y.shape.rank == 4 else None for call, y in outputs.items()}

    def differs(y):
        y = tf.cast(y, tf.float32)
        limit = tolerance * tf.reduce_max(tf.abs(y[1]))
        return tf.reduce_any(tf.abs(y[0] - y[1]) > limit, axis=[2 - axis, 2])

    with lowering.disabled():
        compare = compare.get_concrete_function(tf.TensorSpec([2, *image.shape]))
    found = [compare(tf.constant([each, image])) for each in images]
    return {
        call: None if changed is None else np.array([each[call] for each in found])
        for call, changed in found[0].items()
    }


def _side(changed, lines, length):
    """Return the largest size of a receptive field along an axis, in pixels; None if it cannot be determined.

    changed: None if the output is not a feature map, otherwise bool [multiple, places]. changed[i, j] is True
    if the line of image i changes the output at place j along the axis. lines: int [multiple], the position
    of the line in each image. multiple: as returned by `tiling.multiple`. length: the size of the
    images along the axis, in pixels.

    Output pixels whose distance is a multiple of `multiple` image pixels have receptive fields of the same
    size; they form a group. For each line, and each output pixel of the group that the line changes, consider
    the offset between line and output pixel in image pixels. The size of the group's receptive fields is the
    largest offset minus the smallest offset, plus 1.

    The result is None if a line changes the first or the last place, because the receptive field may then
    exceed the image. The result is also None if no line changes the output.
    """
    if changed is None or changed[:, [0, -1]].any() or not changed.any():
        return None
    multiple, places = changed.shape
    stride = length / places
    line, place = np.nonzero(changed)
    offset, kind = lines[line] - place * stride, place % round(multiple / stride)
    return max(int(np.ptp(offset[kind == each])) + 1 for each in np.unique(kind))
