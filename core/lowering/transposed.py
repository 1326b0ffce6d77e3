"""Rules for transposed convolutions: a faster gradient of the kernel, and faster prediction.

In prediction, the rules replace some transposed convolutions by convolutions, which TensorFlow can fuse.

Kernels are [h, w, O, I], where I and O are the numbers of input and output channels.
"""

import numpy as np
import tensorflow as tf

from core.lowering import graph, policy


def conv2d_transpose(x, kernel, strides, padding):
    """Return `plain_conv2d_transpose` of x and a float32 kernel, which is cast to the dtype of x.

    If the kernel is 3x3, the stride is 2, the padding is SAME and x is bfloat16, the backward pass computes
    the gradient of the kernel by matrix products, which is faster than TensorFlow's gradient op.

    In prediction, a convolution replaces the transposed convolution in two cases with padding SAME:

    - the kernel is 3x3 and the stride is 1 (`policy.applied` does not count this case)
    - the kernel is 2x2, the stride is 2, x is bfloat16 and the processor has AMX

    TensorFlow can fuse a convolution with the ops after it, but not a transposed convolution.
    """
    kernel = tf.cast(kernel, x.dtype)
    size = (*kernel.shape[:2], strides, padding)
    if size == (3, 3, 1, "SAME") and policy.predicting():
        return tf.nn.conv2d(x, tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2]), 1, "SAME")
    if size == (2, 2, 2, "SAME") and policy.predicting() and policy.direct_convolutions_are_faster(x.dtype):
        return _conv2d_of_blocks(x, kernel)
    if size == (3, 3, 2, "SAME") and x.dtype == tf.bfloat16:
        policy.count("transpose_kernel_gradient")
        return _with_kernel_gradient_by_products(x, kernel)
    return plain_conv2d_transpose(x, kernel, strides, padding)


def plain_conv2d_transpose(x, kernel, strides, padding):
    """Return `tf.nn.conv2d_transpose` of x and kernel, with the output size of Keras' Conv2DTranspose.

    Let H be the height of x, and h the height of the kernel. The height of the output is strides * H for the
    padding SAME, and strides * H + max(h - strides, 0) for VALID. The width is computed in the same way.
    """
    size = tf.shape(x)
    beyond = [max(side - strides, 0) if padding == "VALID" else 0 for side in kernel.shape[:2]]
    output_shape = [size[0], strides * size[1] + beyond[0], strides * size[2] + beyond[1], kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, output_shape, strides=strides, padding=padding)


def _conv2d_of_blocks(x, kernel):
    """Return the transposed convolution of x and a 2x2 kernel with stride 2: [B, H, W, I] -> [B, 2H, 2W, O].

    Each input pixel determines a block of 2x2 output pixels. A 1x1 convolution computes the 4 * O channels of
    the block, and `depth_to_space` moves them to their pixels.
    """
    policy.count("conv2d_of_blocks")
    _, _, outputs, inputs = kernel.shape
    blocks = tf.transpose(tf.reshape(kernel, [4 * outputs, inputs]))
    return tf.nn.depth_to_space(tf.nn.conv2d(x, blocks[None, None], 1, "SAME"), 2)


@graph.custom_gradient
def _with_kernel_gradient_by_products(x, kernel):
    """Return the transposed convolution of x and a 3x3 kernel with stride 2: [B, H, W, I] -> [B, 2H, 2W, O].

    The gradient of the kernel is computed by `_kernel_gradient`.
    """

    def gradient(upstream):
        x_gradient = tf.nn.conv2d(upstream, kernel, strides=2, padding="SAME")
        return x_gradient, _kernel_gradient(x, upstream, kernel.shape)

    return plain_conv2d_transpose(x, kernel, 2, "SAME"), gradient


def _kernel_gradient(x, upstream, shape):
    """Return the gradient of the kernel, [3, 3, O, I], computed as one matrix product per tap.

    A tap is the matrix [O, I] at one row and column of the kernel. x: [B, H, W, I]. upstream: the gradient of
    the output, [B, 2H, 2W, O]. shape: the shape of the kernel.

    In the forward pass, input pixel (i, j) times tap (row, column) is added to the output pixel in row
    2 * i + row and column 2 * j + column. The code first moves the four pixels of each 2x2 block of upstream
    into channels. The pixels for a tap are then a slice with stride 1. For input pixel (i, j), block (i, j)
    holds the output pixels of the taps in rows 0 and 1 and columns 0 and 1. The output pixels of the taps in
    row 2 are in the block below. The output pixels of the taps in column 2 are in the block to the right.
    """
    _, height, width, _ = tf.unstack(tf.shape(x))
    _, _, outputs, inputs = shape
    blocks = tf.pad(tf.nn.space_to_depth(upstream, 2), [[0, 0], [0, 1], [0, 1], [0, 0]])
    pixels = tf.split(blocks, 4, axis=3)
    taps = []
    for row, column in np.ndindex(3, 3):
        pixel, below, right = 2 * (row % 2) + column % 2, row // 2, column // 2
        seen = pixels[pixel][:, below : below + height, right : right + width]
        seen, source = tf.reshape(seen, [-1, outputs]), tf.reshape(x, [-1, inputs])
        taps.append(tf.matmul(seen, source, transpose_a=True))
    return tf.reshape(tf.stack(taps), shape)
