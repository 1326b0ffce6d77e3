"""Winograd's algorithm for 3x3 convolutions of many channels, with half as many multiplications.

The algorithm is F(4, 3) of Lavin and Gray (2016), "Fast algorithms for convolutional neural networks",
applied along the height of the image. A window of six input rows determines four output rows. A direct
convolution convolves an input row with a kernel row 4 * 3 = 12 times per window. Winograd's algorithm
does this 6 times:

    output rows = VALUES_TO_OUTPUT @ ((KERNEL_TO_VALUES @ kernel rows) * (INPUT_TO_VALUES @ input rows))

Here "@" is a matrix product, which computes linear combinations of rows. INPUT_TO_VALUES gives six
combinations of input rows, and KERNEL_TO_VALUES gives six combinations of kernel rows. The operator "*"
convolves combination number i of the input rows with combination number i of the kernel rows.

The three constant matrices come from Toom and Cook's multiplication of polynomials. Their method evaluates
polynomials at six points. The combinations of rows are called values, because they correspond to the values
of the polynomials at these points.

Activations are [batch, height, width, channels], and kernels are [height, width, in, out].
"""

import functools

import numpy as np
import tensorflow as tf

from core.lowering import graph, policy

MIN_CHANNEL_PRODUCT = 2**14  # smallest (input channels * output channels) for which the algorithm is used
OUTPUT_ROWS = 4  # number of output rows that a window of six input rows determines


def _transforms(points):
    """Return (INPUT_TO_VALUES, KERNEL_TO_VALUES, VALUES_TO_OUTPUT), float32, for six points.

    points: five different numbers. The sixth point is infinity. The first matrix, [6, 6], maps six input
    rows to six values. The second matrix, [6, 3], maps three kernel rows to six values. The third matrix,
    [4, 6], maps six products to four output rows. Each product is an input value convolved with a kernel
    value.
    """
    powers = np.vander(points, OUTPUT_ROWS, increasing=True)  # [5, 4]
    others = [[other for other in points if other != point] for point in points]
    scales = [[np.prod(point - np.array(rest))] for point, rest in zip(points, others)]
    input_to_values = [[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]]
    kernel_to_values = np.vstack([powers[:, :3] / scales, [0, 0, 1]])
    values_to_output = np.vstack([powers, [0, 0, 0, 1]]).T
    return (np.array(each, np.float32) for each in (input_to_values, kernel_to_values, values_to_output))


# Of all points that were tried, these give the smallest rounding errors in bfloat16 (see BUILD_NOTES.md).
INPUT_TO_VALUES, KERNEL_TO_VALUES, VALUES_TO_OUTPUT = _transforms((0, 3 / 4, -3 / 4, 3 / 2, -3 / 2))


def conv2d(x, kernel, strides, padding):
    """Return `tf.nn.conv2d` of x and a float32 kernel, computed by Winograd's algorithm if it applies."""
    if not applies(x, kernel, strides, padding):
        return tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides=strides, padding=padding)
    policy.count("winograd")
    return winograd_conv2d(x, kernel)


def applies(x, kernel, strides, padding):
    """True if `conv2d` uses Winograd's algorithm. This is so if all these conditions hold:

    - the kernel is 3x3, the stride is 1 and the padding is SAME
    - input channels * output channels is at least MIN_CHANNEL_PRODUCT
    - x is float32, or x is bfloat16 and the processor has no AMX (Intel's matrix instructions)
    """
    height, width, inputs, outputs = kernel.shape
    fits = (height, width, strides, padding) == (3, 3, 1, "SAME") and x.dtype in (tf.float32, tf.bfloat16)
    wide = inputs * outputs >= MIN_CHANNEL_PRODUCT
    return fits and wide and not policy.direct_convolutions_are_faster(x.dtype)


@graph.custom_gradient
def winograd_conv2d(x, kernel):
    """Return `tf.nn.conv2d` with a 3x3 kernel, stride 1 and padding SAME: [B, H, W, I] -> [B, H, W, O].

    kernel: float32 [3, 3, I, O]. It is transformed in float32, whatever the dtype of x. The backward pass
    always computes the gradients of both x and kernel.

    Rounding errors in an output row are relative to the largest values in the six input rows of its window,
    although the output row depends on only three of these rows. If another input row of the window has 100
    times larger values, the output row loses most of its accuracy in bfloat16, and two decimal digits in
    float32.
    """

    def gradient(upstream):
        # Both gradients need transformed copies of their inputs. Without the control dependencies, TensorFlow
        # could make these copies early or at the same time, which would need more memory.
        with tf.control_dependencies([upstream]):
            x_again = tf.identity(x)
        kernel_gradient = _kernel_gradient(x_again, upstream)
        with tf.control_dependencies([kernel_gradient]):
            upstream = tf.identity(upstream)
        return _convolve(upstream, kernel, transposed=True), kernel_gradient

    return _convolve(x, kernel), gradient


def _convolve(x, kernel, *, transposed=False):
    """Return the convolution of x with a kernel [3, 3, I, O]: [B, H, W, I] -> [B, H, W, O].

    If transposed is true, return the transposed convolution: [B, H, W, O] -> [B, H, W, I].
    """
    height, width = graph.height_and_width(x)
    count, outputs = -(-height // OUTPUT_ROWS), kernel.shape[2 if transposed else 3]
    values = _values_of_windows(x, INPUT_TO_VALUES, above=1)
    # wait for x: TensorFlow could otherwise transform the kernels of all layers at the start of the step
    with tf.control_dependencies([x]):
        rows = tf.tensordot(KERNEL_TO_VALUES[:, :: -1 if transposed else 1], kernel, 1)  # [6, 3, I, O]
    rows = tf.split(tf.cast(rows, x.dtype), len(values))  # each [1, 3, I, O]
    if transposed:
        shape = tf.concat([tf.shape(values[0])[:3], [outputs]], axis=0)
        convolve = functools.partial(tf.nn.conv2d_transpose, output_shape=shape, strides=1, padding="SAME")
    else:
        convolve = functools.partial(tf.nn.conv2d, strides=1, padding="SAME")
    products = tf.stack([convolve(value, row) for value, row in zip(values, rows)], axis=2)
    products = tf.reshape(products, [-1, count, len(values), width * outputs])  # [B, ceil(H / 4), 6, W * O]
    y = tf.matmul(tf.cast(VALUES_TO_OUTPUT, x.dtype), products)  # [B, ceil(H / 4), 4, W * O]
    return tf.reshape(y, [-1, OUTPUT_ROWS * count, width, outputs])[:, :height]


def _kernel_gradient(x, upstream):
    """Return the gradient of the kernel, float32 [3, 3, I, O], for an upstream gradient [B, H, W, O].

    x: the input of the convolution, [B, H, W, I]. The code computes one matrix product for each of the six
    values and each of the three kernel columns. For these products, all rows of all images are joined into
    one long row. A column of zeros is first added on the left of each row. A shift by one column in an image
    is then a shift by one element in the long row.
    """
    values = _values_of_windows(x, INPUT_TO_VALUES, above=1, left=1)
    upstream_values = _values_of_windows(upstream, VALUES_TO_OUTPUT.T, above=0, left=1)
    # from_second(a) is a[1:], and to_last(a) is a[:-1]. All calls share constants, to keep the graph small.
    zero, one, minus_one = (tf.constant([index]) for index in (0, 1, -1))
    from_second = functools.partial(tf.strided_slice, begin=one, end=zero, strides=one, end_mask=1)
    to_last = functools.partial(tf.strided_slice, begin=zero, end=minus_one, strides=one)
    input_shape, output_shape = (tf.constant([-1, each.shape[3]]) for each in (x, upstream))
    columns = []
    for value, up in zip(values, upstream_values):
        value, up = tf.reshape(value, input_shape), tf.reshape(up, output_shape)
        pairs = (to_last(value), from_second(up)), (value, up), (from_second(value), to_last(up))
        columns += [tf.matmul(inputs, outputs, transpose_a=True) for inputs, outputs in pairs]  # [I, O]
    columns = tf.reshape(tf.stack(columns), [len(values), 3, *columns[0].shape])
    return tf.tensordot(KERNEL_TO_VALUES.T, tf.cast(columns, tf.float32), 1)


def _values_of_windows(x, transform, *, above, left=0):
    """Return linear combinations of the rows of each window: P tensors [B, ceil(H / 4), left + W, C].

    x: [B, H, W, C]. Window i consists of R rows of x, beginning with row 4 * i - above. Rows outside of x
    are zeros. transform: [P, R], the coefficients of the combinations. left: the number of columns of zeros
    that are added on the left of x.
    """
    height, width = graph.height_and_width(x)
    channels, (points, size) = x.shape[3], transform.shape
    count, width = -(-height // OUTPUT_ROWS), left + width
    below = OUTPUT_ROWS * count - height + size - OUTPUT_ROWS - above
    rows = tf.pad(x, [[0, 0], [above, below], [left, 0], [0, 0]])
    if size > OUTPUT_ROWS:  # windows overlap
        arange = tf.range if tf.is_tensor(count) else np.arange  # NumPy adds no ops to the graph
        first_rows = OUTPUT_ROWS * arange(count)[:, None]
        rows = tf.gather(rows, first_rows + np.arange(size), axis=1)  # [B, ceil(H / 4), R, left + W, C]
    windows = tf.reshape(rows, [-1, count, size, width * channels])
    values = tf.matmul(tf.cast(transform, x.dtype), windows)  # [B, ceil(H / 4), P, (left + W) * C]
    return tf.unstack(tf.reshape(values, [-1, count, points, width, channels]), axis=2)
