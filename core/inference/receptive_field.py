"""Measure the receptive field of a network: which outputs change if one line of the input image changes.

A line is a row or a column of pixels. The network runs on two kinds of images.

First, it runs with `probe_weights`, on a black image and on the same image with one bright line. With these
weights, kernels are positive, and all activations of the black image are zero, at the latest after the first
ReLU. So no change is lost in rounding, in a ReLU or in a pooling. But the product of two activations, such as
x * sigmoid(mean(x)), stays zero at all places where x stays zero, although the other factor changes.

Second, it therefore runs with its own weights, on an image of noise and on the same image with one line made
brighter. In these images, x is rarely zero, so the product changes if the other factor changes.
"""

import numpy as np
import tensorflow as tf

from core import lowering
from core.runtime.errors import InputError

# `radius` runs the network on images of at most this length, in pixels. It can measure a radius only if
# radius + multiple is below half of this length.
LARGEST_PROBE = 8192
# On images of noise, a difference counts as a change if it is larger than NOISE_TOLERANCE times the largest
# output. Smaller differences may be rounding errors.
NOISE_TOLERANCE = 1e-5


def radius(forward, weights, multiple):
    """Return the radius of the network's receptive field, in pixels.

    An output pixel depends on the input pixels around it. The radius is the largest distance, along one axis,
    between an output pixel and an input pixel on which the output pixel depends. The distance depends on the
    position of the input pixel, because of pooling. So `multiple` consecutive positions are tried.

    forward: a function (weights, images) -> logits. weights: name -> tensor. multiple: the number that
    `tiling.multiple` returns.
    Raises InputError if the radius is too large to be measured, if no output pixel changes, or if the outputs
    for an image that is shifted by `multiple` pixels are not the shifted outputs.
    """
    kinds, length = probes(weights), 16 * multiple
    while length <= LARGEST_PROBE:
        farthest = max(_farthest(forward, kinds, multiple, length, axis) for axis in (1, 2))
        if farthest + multiple < length // 2:
            return farthest
        length *= 2
    raise InputError(
        "--tile: must be at least the image's size, because this network's outputs depend on inputs"
        f" {farthest} pixels away."
    )


def probes(weights):
    """Return the two kinds of measurements, a list of tuples (weights, make_image, tolerance).

    weights: name -> tensor, the weights with which the network runs. make_image: a function: shape -> the
    unchanged image, float32. tolerance: an output has changed if it differs by more than tolerance times the
    largest output.
    """
    return [(probe_weights(weights), _black, 0), (weights, _noise, NOISE_TOLERANCE)]


def image_shape(length, multiple, axis):
    """Return the shape (height, width, 3) of an image with `length` pixels along an axis.

    axis: 1 for the height, 2 for the width. The size along the other axis is 3 * multiple: `tiling.multiple`,
    which returned `multiple`, has found that the network accepts this size.
    """
    return (length, 3 * multiple, 3) if axis == 1 else (3 * multiple, length, 3)


def with_line(image, place, axis):
    """Return a copy of an image, float32 [height, width, 3], with a line that is brighter by 1000.

    place: the index of the line. axis: 1 if the line is a row, 2 if it is a column.
    """
    image = image.copy()
    image[(place, slice(None)) if axis == 1 else (slice(None), place)] += 1000
    return image


def _black(shape):
    return np.zeros(shape, np.float32)


def _noise(shape):
    return np.random.RandomState(0).uniform(0, 255, shape).astype(np.float32)


def probe_weights(weights):
    """Return weights with which a bright input pixel changes every output pixel that depends on it.

    The returned dict, name -> tensor, replaces the network's own weights. The values of kernels, which are
    the weights with four axes, are positive. So no ReLU sets a change to zero, and changes of several
    activations do not cancel. Weights whose names end in bias, beta or mean are zero, so that the activations
    of a black image are zero, at the latest after the first ReLU. All other weights are one.
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


def _farthest(forward, kinds, multiple, length, axis):
    """Return the largest distance along one axis between a line and an output that it changes, in pixels.

    The lines are near the middle of the images. kinds: the result of `probes`. length, axis: see
    `image_shape`. If the first line changes outputs near an end of the image, only this line is tried. Raises
    InputError if it changes no output, or if the outputs for a shifted image are not the shifted outputs.
    """
    shape = image_shape(length, multiple, axis)
    black, noise = ((weights, make_image(shape), tolerance) for weights, make_image, tolerance in kinds)
    first, *others = length // 2 + np.arange(multiple + 1)
    (on_black,), (on_noise,) = (_distances(forward, kind, [first], axis) for kind in (black, noise))
    if not len(on_black):
        raise InputError(
            "--tile: must be at least the image's size, because the radius of this network's receptive field"
            " cannot be measured: a bright line in the input changed no output."
        )
    farthest = int(np.abs([*on_black, *on_noise]).max())
    if farthest + multiple >= length // 2:
        return farthest
    found = _distances(forward, black, others, axis)
    if not np.array_equal(found[-1], on_black):
        raise InputError(
            "--tile: must be at least the image's size, because the outputs for an image that is shifted by"
            f" {multiple} pixels are not the shifted outputs; let the forward pass raise ValueError for image"
            " sides that its strides do not divide."
        )
    if not set(on_noise) <= set(on_black):  # a product of feature maps enlarges the receptive field
        found += _distances(forward, noise, others, axis)
    return max(farthest, int(np.abs(np.concatenate(found)).max()))


def _distances(forward, kind, lines, axis):
    """Return a list with an array for each line, int64 [N]: its distances from the outputs that it changes.

    A distance is the position of the output minus the position of the line, along the axis, in pixels. kind:
    an item of `probes`, but with the image instead of the function make_image. lines: the positions of the
    lines. axis: 1 if they are rows, 2 if they are columns.
    """
    weights, image, tolerance = kind

    def outputs(image):
        with tf.device("CPU:0"), lowering.disabled():  # on a GPU, equal sums may be rounded differently
            return forward(weights, tf.constant(image[None])).numpy()

    before = outputs(image)
    limit = tolerance * np.abs(before).max()
    changes = (np.abs(outputs(with_line(image, place, axis)) - before) for place in lines)
    return [
        np.flatnonzero((change > limit).any(axis=(0, 3 - axis, 3))) - place
        for place, change in zip(lines, changes)
    ]
