"""Transposed convolutions whose gradient with respect to the kernel is computed faster.

Kernels are [h, w, O, I], where I and O are the numbers of input and output channels.
"""

import numpy as np
import tensorflow as tf

from core.lowering import graph, policy


def conv2d_transpose(x, kernel, strides, padding):
    """Return `plain_conv2d_transpose` of x and a float32 kernel, which is cast to the dtype of x.

    If the kernel is 3x3, the stride is 2, the padding is SAME and x is bfloat16, the backward pass computes
    the gradient of the kernel by matrix products, which is faster.
    """
    kernel = tf.cast(kernel, x.dtype)
    if (*kernel.shape[:2], strides, padding, x.dtype) != (3, 3, 2, "SAME", tf.bfloat16):
        return plain_conv2d_transpose(x, kernel, strides, padding)
    policy.count("transpose_kernel_gradient")
    return _with_kernel_gradient_by_products(x, kernel)


def plain_conv2d_transpose(x, kernel, strides, padding):
    """Return `tf.nn.conv2d_transpose` of x and kernel, with the output size of Keras' Conv2DTranspose.

    Let H be the height of x, and h the height of the kernel. The height of the output is strides * H for the
    padding SAME, and strides * H + max(h - strides, 0) for VALID. The width is computed in the same way.
    """
    size = tf.shape(x)
    beyond = [max(side - strides, 0) if padding == "VALID" else 0 for side in kernel.shape[:2]]
    output_shape = [size[0], strides * size[1] + beyond[0], strides * size[2] + beyond[1], kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, output_shape, strides=strides, padding=padding)


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
    into channels. The pixels for a tap are then a slice with stride 1. Block (i, j) holds the output pixels
    for the taps in rows 0 and 1 and columns 0 and 1. The output pixels for taps in row 2 are in the block
    below. The output pixels for taps in column 2 are in the block to the right.
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
