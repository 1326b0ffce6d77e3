"""Find the receptive field of each operation of a network from black images with one bright line.

If the line changes a pixel of an operation's output, it lies in the receptive field of this pixel.

`experiments.benchmark.operations` defines what an operation is.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.inference import tiling
from experiments.benchmark import operations

LARGEST_PROBE = 2048  # largest length of the images with which the network is probed, in pixels


def sides(forward, weights):
    """Return `Operation.index` -> side of the receptive field of the operation's output, in pixels.

    The side is the larger one of height and width. It is None if the receptive field is larger than about
    LARGEST_PROBE pixels, or if the output is not a feature map [B, H, W, C].

    The network runs with the weights of `tiling.probe_weights` on black images with one bright row or column.
    An output depends on the bright line if it differs from the output for an all-black image. Lines at
    `tiling.multiple` neighbouring positions suffice, because receptive fields repeat with this period.
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
    """Return `Operation.index` -> side of the receptive field along one axis, or None.

    probe: weights for probing. length: size of the images along the axis. axis: 1 for height, 2 for width.
    """
    bright = length // 2 + np.arange(multiple)  # image i has a bright line at bright[i]; the last is black
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
    """Return the side of the largest receptive field along an axis; None if it may exceed the image.

    changed: bool [multiple, places], True where a bright line changes the output at a place along the axis.
    bright: int [multiple], the positions of the lines. length: size of the images along the axis. Outputs
    whose positions differ by `multiple` pixels have receptive fields of the same size and are treated as one.
    """
    if changed[:, [0, -1]].any() or not changed.any():
        return None
    multiple, places = changed.shape
    stride = length / places
    line, place = np.nonzero(changed)
    offset, kind = bright[line] - place * stride, place % round(multiple / stride)
    return max(int(np.ptp(offset[kind == each])) + 1 for each in np.unique(kind))
