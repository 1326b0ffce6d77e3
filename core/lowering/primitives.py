"""Wrappers of six TensorFlow primitives. In graphs, rules may replace them by faster computations.

The docstring of `core.lowering` explains what a rule is. A kernel argument has the dtype of x. If the kernel
is the cast of a float32 tensor to this dtype, rules receive the float32 tensor. `options` are optional
arguments of TensorFlow's primitive, such as dilations.

TensorFlow's primitive always runs in these cases: the call has options; the kernel that rules would receive
is not float32; the graph does not know the whole shape of the kernel; the graph does not know that x has rank
4; the graph does not know how many channels x has; the convolution is grouped, which means that the kernel
has fewer input channels than x.
"""

import tensorflow as tf

from core.lowering import fusion, graph, merged, policy, transposed, winograd


def conv2d(x, kernel, strides, padding, **options):
    """Return `tf.nn.conv2d` of x [B, H, W, I] and kernel [h, w, I, O]. strides: int."""
    # the last condition is true for a grouped convolution
    if options or not _may_be_lowered(x, kernel) or kernel.shape[2] != x.shape[3]:
        return tf.nn.conv2d(x, kernel, strides=strides, padding=padding, **options)
    kernel = tf.convert_to_tensor(graph.before_cast(kernel))
    y = merged.transpose_then_conv(x, kernel, strides, padding)
    if y is None:
        y = fusion.conv2d_of_parts(x, kernel, strides, padding)
    if y is None:
        y = winograd.conv2d(x, kernel, strides, padding)
    return graph.remember(y, graph.Call("conv2d", x, kernel, strides, padding))


def conv2d_transpose(x, kernel, strides, padding):
    """Return `tf.nn.conv2d_transpose` of x [B, H, W, I] and kernel [h, w, O, I]. strides: int.

    With padding SAME, the result is [B, strides * H, strides * W, O]. `transposed.plain_conv2d_transpose`
    describes the output size with padding VALID.
    """
    if not _may_be_lowered(x, kernel):
        return transposed.plain_conv2d_transpose(x, kernel, strides, padding)
    kernel = tf.convert_to_tensor(graph.before_cast(kernel))
    y = merged.nearest_then_skip(x, kernel, strides, padding)
    if y is None:
        y = merged.frozen_part_apart(x, kernel, strides, padding)
    if y is None:
        y = transposed.conv2d_transpose(x, kernel, strides, padding)
    return graph.remember(y, graph.Call("conv2d_transpose", x, kernel, strides, padding))


def depthwise_conv2d(x, kernel, strides, padding, **options):
    """Return `tf.nn.depthwise_conv2d` of x [B, H, W, C] and kernel [h, w, C, M]. strides: int.

    The result has C * M channels.
    """
    y = tf.nn.depthwise_conv2d(x, kernel, [1, strides, strides, 1], padding, **options)
    if options or not _may_be_lowered(x, kernel):
        return y
    kernel = tf.convert_to_tensor(graph.before_cast(kernel))
    return graph.remember(y, graph.Call("depthwise_conv2d", x, kernel, strides, padding))


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    """Return `tf.compat.v1.nn.fused_batch_norm` of x [B, H, W, C] with the given mean and variance.

    gamma, beta, mean, variance: float32 [C]. epsilon: float. The result has the shape of x.
    """
    y = merged.frozen_norm(x, gamma, beta, mean, variance, epsilon) if _may_be_lowered(x) else None
    if y is not None:
        return y
    y, *_ = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, mean, variance, epsilon=epsilon, is_training=False
    )
    return y


def bias_add(x, bias):
    """Return `tf.nn.bias_add` of x [B, H, W, C] and bias [C]."""
    return fusion.bias_add(x, bias) if _may_be_lowered(x) else tf.nn.bias_add(x, bias)


def leaky_relu(x, slope):
    """Return `tf.nn.leaky_relu` of x [B, H, W, C]. slope: float, the slope for negative inputs."""
    return fusion.leaky_relu(x, slope) if _may_be_lowered(x) else tf.nn.leaky_relu(x, slope)


def _may_be_lowered(x, kernel=None):
    """True if rules may replace a call with these arguments. kernel: None if the primitive has no kernel."""
    if not tf.is_symbolic_tensor(x) or not policy.enabled() or x.shape.rank != 4 or x.shape[3] is None:
        return False
    return kernel is None or (
        tf.TensorShape(kernel.shape).is_fully_defined() and graph.before_cast(kernel).dtype == tf.float32
    )
