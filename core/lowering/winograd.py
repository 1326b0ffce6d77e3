"""Winograd's algorithm for 3x3 convolutions of many channels: half of the multiplications.

The algorithm is F(4, 3) of Lavin and Gray (2016), "Fast algorithms for convolutional neural networks",
applied along the height of the image. A window of six input rows determines four output rows. A direct
convolution convolves an input row with a kernel row 4 * 3 = 12 times per window. Winograd's algorithm
does this 6 times:

    output rows = VALUES_TO_OUTPUT @ ((KERNEL_TO_VALUES @ kernel rows) * (INPUT_TO_VALUES @ input rows))

Each matrix product computes linear combinations of rows, and "*" convolves each of the six combinations
of input rows with one of the six combinations of kernel rows. The constant matrices come from Toom and
Cook's multiplication of polynomials, which evaluates polynomials at six points. The combinations are
called values, after the values of the polynomials at these points.

The layouts are those of `core.ops`.
"""

import functools

import numpy as np
import tensorflow as tf

from core.lowering import graph, policy

MIN_CHANNEL_PRODUCT = 2**14  # smallest product of input and output channels for which the transforms pay off
WINDOW = 4  # output rows per window of six input rows


def _transforms(points):
    """Return Toom and Cook's constant matrices, float32, for five points and infinity.

    The first matrix, [6, 6], maps six input rows to six values. The second matrix, [6, 3], maps three kernel
    rows to six values. The third matrix, [4, 6], maps the six products of values to four output rows.
    """
    powers = np.vander(points, WINDOW, increasing=True)  # [5, 4]
    others = [[other for other in points if other != point] for point in points]
    scales = [[np.prod(point - np.array(rest))] for point, rest in zip(points, others)]
    input_to_values = [[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]]
    kernel_to_values = np.vstack([powers[:, :3] / scales, [0, 0, 1]])
    values_to_output = np.vstack([powers, [0, 0, 0, 1]]).T
    return (np.array(each, np.float32) for each in (input_to_values, kernel_to_values, values_to_output))


# Of the points tried, these have the smallest rounding errors in bfloat16 (BUILD_NOTES.md).
INPUT_TO_VALUES, KERNEL_TO_VALUES, VALUES_TO_OUTPUT = _transforms((0, 3 / 4, -3 / 4, 3 / 2, -3 / 2))


def conv2d(x, kernel, strides, padding):
    """Compute `tf.nn.conv2d` of x and a float32 kernel, by Winograd's algorithm where it is faster.

    It is faster for 3x3 kernels, stride 1, SAME and many channels, in float32 and, on processors
    without AMX, in bfloat16.
    """
    height, width, inputs, outputs = kernel.shape
    fits = (height, width, strides, padding) == (3, 3, 1, "SAME") and x.dtype in (tf.float32, tf.bfloat16)
    wide = inputs * outputs >= MIN_CHANNEL_PRODUCT
    if not fits or not wide or policy.direct_convolutions_are_faster(x.dtype):
        return tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides=strides, padding=padding)
    policy.count("winograd")
    return winograd_conv2d(x, kernel)


@graph.custom_gradient
def winograd_conv2d(x, kernel):
    """`tf.nn.conv2d` with a 3x3 kernel, SAME, stride 1: [B, H, W, I] -> [B, H, W, O].

    kernel: float32 [3, 3, I, O], transformed in float32 whatever x's dtype. The backward pass
    always computes both gradients. Rounding errors are relative to the largest of the six rows
    of a window: a row next to one with 100 times larger values loses most of its accuracy in
    bfloat16, and two decimal digits in float32.
    """

    def gradient(upstream):
        # The control dependencies keep the scheduler from running these parts early, which
        # would hold transformed copies of x and of the gradient in memory at the same time.
        with tf.control_dependencies([upstream]):
            x_again = tf.identity(x)
        kernel_gradient = _kernel_gradient(x_again, upstream)
        with tf.control_dependencies([kernel_gradient]):
            upstream = tf.identity(upstream)
        return _convolve(upstream, kernel, transposed=True), kernel_gradient

    return _convolve(x, kernel), gradient


def _convolve(x, kernel, *, transposed=False):
    """Convolve [B, H, W, I] -> [B, H, W, O]; if transposed, [B, H, W, O] -> [B, H, W, I]."""
    height, width = graph.height_and_width(x)
    count, outputs = -(-height // WINDOW), kernel.shape[2 if transposed else 3]
    values = _values_of_windows(x, INPUT_TO_VALUES, above=1)
    # wait for x: otherwise TensorFlow transforms the kernels of all layers at the start of the step
    with tf.control_dependencies([x]):
        rows = tf.tensordot(KERNEL_TO_VALUES[:, :: -1 if transposed else 1], kernel, 1)  # [6, 3, I, O]
    rows = tf.split(tf.cast(rows, x.dtype), len(values))  # each [1, 3, I, O]
    if transposed:
        shape = tf.concat([tf.shape(values[0])[:3], [outputs]], axis=0)
        convolve = functools.partial(tf.nn.conv2d_transpose, output_shape=shape, strides=1, padding="SAME")
    else:
        convolve = functools.partial(tf.nn.conv2d, strides=1, padding="SAME")
    products = tf.stack([convolve(value, row) for value, row in zip(values, rows)], axis=2)
    products = tf.reshape(products, [-1, count, len(values), width * outputs])  # [B, H / 4, 6, W * O]
    y = tf.matmul(tf.cast(VALUES_TO_OUTPUT, x.dtype), products)  # [B, H / 4, 4, W * O]
    return tf.reshape(y, [-1, WINDOW * count, width, outputs])[:, :height]


def _kernel_gradient(x, upstream):
    """Return the gradient, float32 [3, 3, I, O]: one matrix product for each point and kernel column.

    A column of zeros before the first one lets all rows be joined into one long row, in which a
    shift by one column stays a shift by one element.
    """
    values = _values_of_windows(x, INPUT_TO_VALUES, above=1, left=1)
    upstream_values = _values_of_windows(upstream, VALUES_TO_OUTPUT.T, above=0, left=1)
    # value[1:] and value[:-1], with the same constants for all points to keep the graph small
    zero, one, minus_one = (tf.constant([index]) for index in (0, 1, -1))
    from_second = functools.partial(tf.strided_slice, begin=one, end=zero, strides=one, end_mask=1)
    to_last = functools.partial(tf.strided_slice, begin=zero, end=minus_one, strides=one)
    columns = []
    for value, up in zip(values, upstream_values):
        value, up = (tf.reshape(each, [-1, each.shape[-1]]) for each in (value, up))
        pairs = (to_last(value), from_second(up)), (value, up), (from_second(value), to_last(up))
        columns += [tf.matmul(inputs, outputs, transpose_a=True) for inputs, outputs in pairs]  # [I, O]
    columns = tf.reshape(tf.stack(columns), [len(values), 3, *columns[0].shape])
    return tf.tensordot(KERNEL_TO_VALUES.T, tf.cast(columns, tf.float32), 1)


def _values_of_windows(x, transform, *, above, left=0):
    """Return the transformed windows of rows: [B, H, W, C] -> list of P tensors [B, H / 4, left + W, C].

    transform: [P, R]. Window i has R rows, beginning with row 4 i - above; rows outside of the image
    are zeros. left: columns of zeros to add on the left.
    """
    height, width = graph.height_and_width(x)
    channels, (points, size) = x.shape[3], transform.shape
    count, width = -(-height // WINDOW), width + left if left else width
    below = WINDOW * count - height + size - WINDOW - above
    rows = tf.pad(x, [[0, 0], [above, below], [left, 0], [0, 0]])
    if size > WINDOW:  # windows overlap
        first_rows = tf.reshape(tf.range(0, WINDOW * count, WINDOW), [-1, 1])
        rows = tf.gather(rows, first_rows + np.arange(size), axis=1)  # [B, H / 4, R, left + W, C]
    windows = tf.reshape(rows, [-1, count, size, width * channels])
    values = tf.matmul(tf.cast(transform, x.dtype), windows)  # [B, H / 4, P, (left + W) * C]
    return tf.unstack(tf.reshape(values, [-1, count, points, width, channels]), axis=2)
