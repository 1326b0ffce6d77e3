"""Convolutions of `tf.nn` with less arithmetic, or as products of matrices, for CPUs.

The same functions but for rounding. `core.ops` calls them where they pay; layouts are as there.
"""

import contextlib
import contextvars

import numpy as np
import tensorflow as tf

WIDE = 2**14  # input times output channels from which half of the products pay for the additions
ROWS = 4  # of outputs, that come out of a window
FEW = 16  # output channels: with fewer, oneDNN's transposed convolution is slow


def _transforms(points):
    """float32 matrices [6, 6], [6, 3], [4, 6] of Cook and Toom's construction, from five points and infinity.

    From six inputs, and from three taps, to their values at the points, and from
    products of these to four outputs.
    """
    powers = np.vander(points, ROWS, increasing=True)  # [5, 4]
    others = [[each for each in points if each != point] for point in points]
    scales = [[np.prod(point - np.array(rest))] for point, rest in zip(points, others)]
    to_values = [[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]]
    kernel_to_values = np.vstack([powers[:, :3] / scales, [0, 0, 1]])
    from_values = np.vstack([powers, [0, 0, 0, 1]]).T
    return (np.array(each, np.float32) for each in (to_values, kernel_to_values, from_values))


# Of the points tried these round least in bfloat16; 0, 1, -1, 2 and -2 are off by 1.4 times as much.
TO_VALUES, KERNEL_TO_VALUES, FROM_VALUES = _transforms((0, 3 / 4, -3 / 4, 3 / 2, -3 / 2))


_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain():
    """Within, what is computed or traced has TensorFlow's own convolutions in place of those below.

    For what goes to other devices, with kernels of nine taps, not of eighteen; and for what must
    stay exactly zero: a window's rows round each other's outputs.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def wanted():
    """Whether convolutions other than TensorFlow's are: where there is no GPU, and not within `plain`."""
    return not tf.config.list_physical_devices("GPU") and not _plain.get()


def pays(x, kernel, stride):
    """Whether to take `conv2d`: for wide layers. (It is slower where the images are tiny, 10x10.)"""
    height, width, inside, outside = kernel.shape
    fits = (height, width, stride) == (3, 3, 1) and inside * outside >= WIDE
    return fits and x.dtype in (tf.float32, tf.bfloat16) and wanted()  # cuDNN has a Winograd of its own


def pays_transposed(x, kernel, stride):
    """Whether to take `conv2d_transpose`: with few outputs, and in bfloat16."""
    height, width, outside, _ = kernel.shape
    fits = (height, width, stride) == (3, 3, 2) and (outside < FEW or x.dtype == tf.bfloat16)
    return fits and wanted()


@tf.custom_gradient
def conv2d(x, kernel):
    """`tf.nn.conv2d`, SAME, stride 1, of 3x3 taps, with half of the products: [B, H, W, I] -> [B, H, W, O].

    kernel: float32 [3, 3, I, O]. Winograd's F(4, 3) along the columns: Lavin and Gray, 2016, "Fast
    algorithms for convolutional neural networks". Four rows of outputs see six of inputs. Outputs
    are the coefficients of a product of polynomials, which follow from its values at six points:
    six products with one row of taps, in place of four rows with three. In bfloat16 outputs are
    off by 0.6 % of their deviation, those of `tf.nn` by 0.24 %. Who asks for the gradient of x
    gets that of the kernel computed too.
    """

    def gradient(upstream):
        with tf.control_dependencies([upstream]):  # else what the forward pass made of x is kept till now
            again = tf.identity(x)
        to_kernel = _winograd_kernel_gradient(again, upstream)
        with tf.control_dependencies([to_kernel]):  # one after the other: 300 MiB of the pets' network
            upstream = tf.identity(upstream)
        return _winograd(upstream, kernel, transposed=True), to_kernel

    return _winograd(x, kernel), gradient


def _winograd(x, kernel, *, transposed=False):
    """As `conv2d`, or the transposed convolution: [B, H, W, O] -> [B, H, W, I]."""
    batch, height, width, _ = tf.unstack(tf.shape(x))
    windows, outside = -(-height // ROWS), kernel.shape[2 if transposed else 3]
    values = _at_points(x, TO_VALUES, above=1)
    with tf.control_dependencies([x]):  # else all layers' taps are made at once, before the first
        taps = tf.tensordot(KERNEL_TO_VALUES[:, :: -1 if transposed else 1], kernel, 1)
    products = []
    for value, row in zip(values, tf.split(tf.cast(taps, x.dtype), len(TO_VALUES))):  # [1, 3, I, O]
        if transposed:
            shape = [*tf.unstack(tf.shape(value))[:3], outside]
            product = tf.nn.conv2d_transpose(value, row, shape, strides=1, padding="SAME")
        else:
            product = tf.nn.conv2d(value, row, strides=1, padding="SAME")
        products.append(tf.reshape(product, [batch, windows, 1, width * outside]))
    y = tf.matmul(tf.cast(FROM_VALUES, x.dtype), tf.concat(products, axis=2))  # [B, H / 4, 4, W * O]
    return tf.reshape(y, [batch, ROWS * windows, width, outside])[:, :height]


def _winograd_kernel_gradient(x, upstream):
    """Each tap's is a product of matrices. A column of zeros before the first makes one line of all rows."""
    values = _at_points(x, TO_VALUES, above=1, left=1)
    upstreams = _at_points(upstream, FROM_VALUES.T, above=0, left=1)
    taps = []
    for value, up in zip(values, upstreams):
        value, up = (tf.reshape(each, [-1, each.shape[-1]]) for each in (value, up))
        for seen, at in ((value[:-1], up[1:]), (value, up), (value[1:], up[:-1])):
            taps.append(tf.matmul(seen, at, transpose_a=True))
    taps = tf.reshape(tf.stack(taps), [len(values), 3, *taps[0].shape])
    return tf.tensordot(KERNEL_TO_VALUES.T, tf.cast(taps, tf.float32), 1)


def _at_points(x, transform, *, above, left=0):
    """The values of windows of rows at each point: [B, H, W, C] -> P times [B, H / 4, left + W, C].

    transform: [P, R]; window i has the R rows from 4 i - above on, and zeros outside of the image.
    """
    batch, height, width, channels = *tf.unstack(tf.shape(x))[:3], x.shape[-1]
    points, size = transform.shape
    count = -(-height // ROWS)
    starts = ROWS * tf.range(count)
    below = ROWS * (count - 1) + size - above - height
    rows = tf.pad(x, [[0, 0], [above, below], [left, 0], [0, 0]])
    rows = tf.reshape(rows, [batch, above + height + below, (left + width) * channels])
    windows = tf.gather(rows, starts[:, None] + tf.range(size), axis=1)  # [B, H / 4, R, (left + W) * C]
    values = tf.split(tf.matmul(tf.cast(transform, x.dtype), windows), points, axis=2)
    return [tf.reshape(each, [batch, count, left + width, channels]) for each in values]


@tf.custom_gradient
def conv2d_transpose(x, kernel):
    """`tf.nn.conv2d_transpose`, SAME, 3x3, stride 2: [B, H, W, I] -> [B, 2H, 2W, O].

    kernel: [3, 3, O, I], of x's dtype. With few outputs it is a product of matrices, 96 to 3
    channels 2.4 times as fast; with many, the gradient of the kernel is. The MobileNetV2 U-Net
    predicts 6 % and, in bfloat16, trains 11 % faster for it.
    """
    few = kernel.shape[2] < FEW

    def gradient(upstream):
        to_x = tf.nn.conv2d(upstream, kernel, strides=2, padding="SAME")
        if few:
            shape, strides = kernel.shape, [1, 2, 2, 1]
            return to_x, tf.compat.v1.nn.conv2d_backprop_filter(upstream, shape, x, strides, "SAME")
        return to_x, _transposed_kernel_gradient(x, upstream, kernel.shape)

    if few:
        return _transposed_by_taps(x, kernel), gradient
    batch, height, width, _ = tf.unstack(tf.shape(x))
    output_shape = [batch, 2 * height, 2 * width, kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, output_shape, strides=2, padding="SAME"), gradient


def _taps():
    """(pixel, below, right) of each of 3x3 taps, row by row.

    Which of the four pixels of a 2x2 block the tap makes, and whether that is the block
    below, and to the right, of the one that belongs to the input.
    """
    for row, column in np.ndindex(3, 3):
        yield 2 * (row % 2) + column % 2, row // 2, column // 2


def _transposed_by_taps(x, kernel):
    """What each input gives by each tap, in one product; of these, for each pixel of a block, a sum."""
    _, height, width, _ = tf.unstack(tf.shape(x))
    _, _, outside, inside = kernel.shape
    given = tf.tensordot(x, tf.reshape(kernel, [9 * outside, inside]), [[3], [1]])  # [B, H, W, 9 O]
    given = tf.split(tf.pad(given, [[0, 0], [1, 0], [1, 0], [0, 0]]), 9, axis=3)
    block = [0, 0, 0, 0]
    for each, (pixel, below, right) in zip(given, _taps()):
        block[pixel] += each[:, 1 - below : 1 - below + height, 1 - right : 1 - right + width]
    return tf.nn.depth_to_space(tf.concat(block, axis=3), 2)


def _transposed_kernel_gradient(x, upstream, shape):
    """Each tap's is a product of matrices. The pixels of a block become channels of one."""
    _, height, width, _ = tf.unstack(tf.shape(x))
    _, _, outside, inside = shape
    block = tf.pad(tf.nn.space_to_depth(upstream, 2), [[0, 0], [0, 1], [0, 1], [0, 0]])
    block = tf.split(block, 4, axis=3)
    taps = []
    for pixel, below, right in _taps():
        seen = block[pixel][:, below : below + height, right : right + width]
        seen, at = tf.reshape(seen, [-1, outside]), tf.reshape(x, [-1, inside])
        taps.append(tf.matmul(seen, at, transpose_a=True))
    return tf.reshape(tf.stack(taps), shape)
