"""Drop-in versions of four TensorFlow primitives, which rules may replace by faster computations in graphs.

The docstring of `core.lowering` explains rules. A kernel argument may be a float32 tensor, or the cast of a
float32 tensor to x's dtype. In both cases, rules receive the float32 tensor. A call with options of the
primitive, such as dilations, always uses TensorFlow's primitive.
"""

import tensorflow as tf

from core.lowering import graph, merged, policy, transposed, winograd


def conv2d(x, kernel, strides, padding, **options):
    """`tf.nn.conv2d`: [B, H, W, I], [h, w, I, O] -> [B, H', W', O]. strides: int."""
    if options or not _may_be_lowered(x):
        return tf.nn.conv2d(x, kernel, strides=strides, padding=padding, **options)
    kernel = graph.before_cast(kernel)
    y = merged.transpose_then_conv(x, kernel, strides, padding)
    if y is None:
        y = winograd.conv2d(x, kernel, strides, padding)
    return graph.remember(y, graph.Call("conv2d", x, kernel, strides, padding))


def conv2d_transpose(x, kernel, strides, padding):
    """`tf.nn.conv2d_transpose`: [B, H, W, I], [h, w, O, I] -> [B, sH, sW, O] for SAME. strides: int."""
    if not _may_be_lowered(x):
        return transposed.plain_conv2d_transpose(x, kernel, strides, padding)
    kernel = graph.before_cast(kernel)
    y = merged.nearest_then_skip(x, kernel, strides, padding)
    if y is None:
        y = merged.frozen_part_apart(x, kernel, strides, padding)
    if y is None:
        y = transposed.conv2d_transpose(x, kernel, strides, padding)
    return graph.remember(y, graph.Call("conv2d_transpose", x, kernel, strides, padding))


def depthwise_conv2d(x, kernel, strides, padding, **options):
    """`tf.nn.depthwise_conv2d`: [B, H, W, C], [h, w, C, M] -> [B, H', W', C M]. strides: int."""
    y = tf.nn.depthwise_conv2d(x, kernel, [1, strides, strides, 1], padding, **options)
    if options or not _may_be_lowered(x):
        return y
    return graph.remember(y, graph.Call("depthwise_conv2d", x, graph.before_cast(kernel), strides, padding))


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    """`tf.compat.v1.nn.fused_batch_norm` with given statistics, float32 [C]: [B, H, W, C] -> [B, H, W, C]."""
    y = merged.frozen_norm(x, gamma, beta, mean, variance, epsilon) if _may_be_lowered(x) else None
    if y is not None:
        return y
    y, *_ = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, mean, variance, epsilon=epsilon, is_training=False
    )
    return y


def _may_be_lowered(x):
    return tf.is_symbolic_tensor(x) and policy.enabled()
