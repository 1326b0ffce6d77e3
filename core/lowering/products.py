"""Transposed convolutions as products of matrices, for kernels that suit them.

The layouts are those of `core.ops`: kernels of transposed convolutions are [h, w, O, I].
"""

import numpy as np
import tensorflow as tf

from core.lowering import policy

MATMUL_BELOW_CHANNELS = 16  # output channels below which a product beats oneDNN's transposed convolution


def conv2d_transpose(x, kernel, strides, padding):
    """Transposed convolution of x and a float32 kernel, as a product of matrices where that pays.

    [B, H, W, I] -> [B, s H, s W, O] in x's dtype for SAME. It pays for kernels as large as their
    stride, and for 3x3 kernels of stride 2 with few output channels or in bfloat16.
    """
    height, width, outputs, _ = kernel.shape
    kernel = tf.cast(kernel, x.dtype)
    if height == width == strides > 1:
        policy.count("transpose_by_blocks")
        return _by_blocks(x, kernel, strides)
    few_outputs = outputs < MATMUL_BELOW_CHANNELS
    if (height, width, strides, padding) == (3, 3, 2, "SAME") and (few_outputs or x.dtype == tf.bfloat16):
        policy.count("transpose_by_taps" if few_outputs else "transpose_kernel_gradient")
        return _stride_two(x, kernel)
    return plain_conv2d_transpose(x, kernel, strides, padding)


def plain_conv2d_transpose(x, kernel, strides, padding):
    """`tf.nn.conv2d_transpose` with the usual output size: s times x's, for VALID h - s more (if h > s)."""
    size = tf.shape(x)
    beyond = [max(side - strides, 0) if padding == "VALID" else 0 for side in kernel.shape[:2]]
    output_shape = [size[0], strides * size[1] + beyond[0], strides * size[2] + beyond[1], kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, output_shape, strides=strides, padding=padding)


def _by_blocks(x, kernel, strides):
    """Each input pixel makes a block of outputs of its own: [B, H, W, I] -> [B, s H, s W, O]."""
    batch, height, width, _ = tf.unstack(tf.shape(x))
    outputs = kernel.shape[2]
    y = tf.tensordot(x, kernel, [[3], [3]])  # [B, H, W, s, s, O]
    y = tf.reshape(y, [batch * height, width, strides, strides * outputs])
    y = tf.transpose(y, [0, 2, 1, 3])  # [B * H, s, W, s * O]
    return tf.reshape(y, [batch, strides * height, strides * width, outputs])


@tf.custom_gradient
def _stride_two(x, kernel):
    """3x3, stride 2: with few output channels the forward pass is a product, else the kernel's gradient."""
    few = kernel.shape[2] < MATMUL_BELOW_CHANNELS

    def gradient(upstream):
        x_gradient = tf.nn.conv2d(upstream, kernel, strides=2, padding="SAME")
        if few:
            shape, strides = kernel.shape, [1, 2, 2, 1]
            return x_gradient, tf.compat.v1.nn.conv2d_backprop_filter(upstream, shape, x, strides, "SAME")
        return x_gradient, _kernel_gradient(x, upstream, kernel.shape)

    if few:
        return _sum_of_taps(x, kernel), gradient
    batch, height, width, _ = tf.unstack(tf.shape(x))
    output_shape = [batch, 2 * height, 2 * width, kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, output_shape, strides=2, padding="SAME"), gradient


def _taps():
    """(pixel, below, right) of each of the nine kernel taps, row by row.

    pixel: which of the four pixels of a 2x2 output block the tap contributes to. below, right:
    1 if that block lies one block below, or right of, the block of the input pixel; else 0.
    """
    for row, column in np.ndindex(3, 3):
        yield 2 * (row % 2) + column % 2, row // 2, column // 2


def _sum_of_taps(x, kernel):
    """One product gives the contribution of each input pixel by each tap; a shifted sum gives the outputs."""
    _, height, width, _ = tf.unstack(tf.shape(x))
    _, _, outputs, inputs = kernel.shape
    product = tf.tensordot(x, tf.reshape(kernel, [9 * outputs, inputs]), [[3], [1]])  # [B, H, W, 9 O]
    contributions = tf.split(tf.pad(product, [[0, 0], [1, 0], [1, 0], [0, 0]]), 9, axis=3)
    block = [0, 0, 0, 0]
    for each, (pixel, below, right) in zip(contributions, _taps()):
        block[pixel] += each[:, 1 - below : 1 - below + height, 1 - right : 1 - right + width]
    return tf.nn.depth_to_space(tf.concat(block, axis=3), 2)


def _kernel_gradient(x, upstream, shape):
    """[3, 3, O, I]: one product of matrices per tap, with the pixels of a 2x2 block as channels."""
    _, height, width, _ = tf.unstack(tf.shape(x))
    _, _, outputs, inputs = shape
    block = tf.pad(tf.nn.space_to_depth(upstream, 2), [[0, 0], [0, 1], [0, 1], [0, 0]])
    block = tf.split(block, 4, axis=3)
    taps = []
    for pixel, below, right in _taps():
        seen = block[pixel][:, below : below + height, right : right + width]
        seen, source = tf.reshape(seen, [-1, outputs]), tf.reshape(x, [-1, inputs])
        taps.append(tf.matmul(seen, source, transpose_a=True))
    return tf.reshape(tf.stack(taps), shape)
