"""Measure the receptive field of each operation of a network with black images that have one bright line.

The line is one pixel wide. If the line changes a pixel of an operation's output, the line crosses the
receptive field of this output pixel.

`experiments.benchmark.operations` defines what an operation is.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.inference import tiling
from experiments.benchmark import operations

LARGEST_PROBE = 2048  # `sides` does not double the length of its images above this number of pixels


def sides(forward, weights):
    """Return a dict: `Operation.index` -> side of the receptive field of the operation's output, in pixels.

    The side is the height or the width of the receptive field, whichever is larger. If the sides differ
    between output pixels, the largest side is returned. The side is None if the receptive field is larger
    than about LARGEST_PROBE pixels, if the output is not a feature map [B, H, W, C], or if no line changes
    the output.

    The network runs on black images with one bright row or column, with the weights of
    `tiling.probe_weights` instead of its own weights. With the weights of `tiling.probe_weights`, a bright
    pixel changes every output pixel that depends on this bright pixel. So an output pixel depends on the
    bright line if its value differs from its value for an all-black image.

    Let m be the result of `tiling.multiple`: the smallest power of two that must divide the height and width
    of the images. Output pixels at a distance of m image pixels have receptive fields of the same size.
    Therefore it is enough to measure lines at m neighbouring positions.
    """
    probe, multiple = tiling.probe_weights(weights), tiling.multiple(forward, weights)
    length = 16 * multiple
    while True:
        by_axis = [_sides(forward, probe, multiple, length, axis) for axis in (1, 2)]
        found = {index: _larger(*(each[index] for each in by_axis)) for index in by_axis[0]}
        if None not in found.values() or 2 * length > LARGEST_PROBE:
            return found
        length *= 2


def _larger(first, second):
    """Return the larger of two sides; None if one of them is None."""
    return None if None in (first, second) else max(first, second)


def _sides(forward, probe, multiple, length, axis):
    """Return a dict: `Operation.index` -> size of the receptive field along one axis, in pixels.

    The size is None if the operation's output is not a feature map [B, H, W, C], or if `_side` returns
    None for it. probe: the weights of `tiling.probe_weights`. multiple: as returned by `tiling.multiple`.
    axis: 1 for height, 2 for width. length: the size of the images along this axis, in pixels.
    """
    bright = length // 2 + np.arange(multiple)  # image i has a line at bright[i]; the last image is black
    images = np.zeros([multiple + 1, multiple, length, 3], np.float32)
    images[np.arange(multiple), :, bright] = 1000
    images = images if axis == 2 else images.swapaxes(1, 2)

    @tf.function(autograph=False)
    def changed(images):
        with operations.scopes():
            logits = forward(probe, images)
        outputs = {call: ops[-1].outputs[0] for call, ops in operations.by_call(images, logits).items()}
        return {
            call: tf.reduce_any(y[:-1] != y[-1:], axis=[3 - axis, 3]) if y.shape.rank == 4 else None
            for call, y in outputs.items()
        }

    with lowering.disabled():
        masks = changed.get_concrete_function(tf.TensorSpec(images.shape))(images)
    return {
        call: None if mask is None else _side(mask.numpy(), bright, length) for call, mask in masks.items()
    }


def _side(changed, bright, length):
    """Return the largest size of a receptive field along an axis, in pixels; None if it cannot be determined.

    changed: bool [multiple, places]; multiple: as returned by `tiling.multiple`. changed[i, j] is True if the
    bright line of image i changes the output at place j along the axis. bright: int [multiple], the position
    of the line in each image. length: the size of the images along the axis, in pixels.

    Output pixels whose distance is a multiple of `multiple` image pixels have receptive fields of the same
    size; they form a group. For each line, and each output pixel of the group that the line changes, consider
    the offset between line and output pixel in image pixels. The size of the group's receptive fields is the
    largest offset minus the smallest offset, plus 1.

    The result is None if a line changes the first or the last place, because the receptive field may then
    exceed the image. The result is also None if no line changes the output.
    """
    if changed[:, [0, -1]].any() or not changed.any():
        return None
    multiple, places = changed.shape
    stride = length / places
    line, place = np.nonzero(changed)
    offset, kind = bright[line] - place * stride, place % round(multiple / stride)
    return max(int(np.ptp(offset[kind == each])) + 1 for each in np.unique(kind))
