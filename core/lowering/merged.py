"""Rules that merge a convolution with ops before or after it, or rewrite it as a sum of convolutions.

The pattern of a rule is a sequence of ops in the graph. If the pattern matches, the rule returns the result
of the last op, computed from the inputs of the first op. Otherwise the rule returns None. TensorFlow prunes
the ops that are no longer used. The layouts of activations and kernels are described in `core.ops`.
"""

import numpy as np
import tensorflow as tf

from core.lowering import fusion, graph, policy, transposed, winograd

# An up-sampling layer maps each input pixel to a block of 2x2 pixels. If a 3x3 transposed convolution
# follows, the two layers together are a transposed convolution with stride 2 and a 4x4 kernel. This kernel
# is the sum of four 3x3 kernels, one for each pixel (i, j) of the block, shifted by i rows and j columns.
SHIFT = np.float32([np.eye(4, 3), np.eye(4, 3, -1)])  # [2, 4, 3]: matrices that shift 3 numbers by 0 or 1
SHIFTS = np.einsum("iar,jbc->abijrc", SHIFT, SHIFT)  # [4, 4, 2, 2, 3, 3]: four 3x3 kernels -> a 4x4 kernel


def nearest_then_skip(x, kernel, strides, padding):
    """Rewrite a 3x3 transposed convolution after nearest-neighbour up-sampling and a concatenation.

    The pattern is x = concat([up, skip]), where `up` is computed from a map `a` by nearest-neighbour
    up-sampling. The transposed convolution of x is the sum of one transposed convolution of `up` and one of
    `skip`. The term for `up` equals a transposed convolution of `a` with stride 2 and a 4x4 kernel. This
    kernel needs 4 multiplications per output value and input channel instead of 9. Neither `up` nor x is
    computed.
    """
    if (*kernel.shape[:2], strides, padding) != (3, 3, 1, "SAME"):
        return None
    parts = graph.concatenated(x) or ()
    a = graph.nearest_source(parts[0]) if len(parts) == 2 else None
    if a is None:
        return None
    policy.count("nearest_then_skip")
    skip = parts[1]
    kernel_of_a, kernel_of_skip = tf.split(kernel, [a.shape[-1], skip.shape[-1]], axis=3)
    shape = [*tf.unstack(tf.shape(skip))[:3], kernel.shape[2]]
    # Up-sampling copies each pixel of `a` to all four pixels of a 2x2 block. The four 3x3 kernels that SHIFTS
    # shifts and adds are therefore the same kernel. So SHIFTS is summed over the four pixels (axes 2 and 3)
    # before it is applied to this kernel.
    kernel_of_a = tf.tensordot(SHIFTS.sum(axis=(2, 3)), kernel_of_a, 2)  # [4, 4, O, I]
    from_a = tf.nn.conv2d_transpose(a, tf.cast(kernel_of_a, x.dtype), shape, 2, "SAME")
    return from_a + transposed.conv2d_transpose(skip, kernel_of_skip, 1, "SAME")


def frozen_part_apart(x, kernel, strides, padding):
    """Rewrite a transposed convolution of concatenated maps if `tf.stop_gradient` produced at least one map.

    The rewrite is a sum of one transposed convolution per map. The backward pass then computes no gradient
    with respect to maps from `tf.stop_gradient`.
    """
    parts = graph.concatenated(x) or ()
    if not any(part.op.type == "StopGradient" for part in parts):
        return None
    policy.count("frozen_part_apart")
    kernels = tf.split(kernel, [part.shape[-1] for part in parts], axis=3)
    return tf.add_n(
        [transposed.conv2d_transpose(part, each, strides, padding) for part, each in zip(parts, kernels)]
    )


def transpose_then_conv(x, kernel, strides, padding):
    """Rewrite a 3x3 convolution after a 2x2 transposed convolution and a concatenation.

    The pattern is x = concat([up, skip]). Here `up` is the sum of a bias and the 2x2 transposed
    convolution, with stride 2, of a map `a` [B, H, W, I]. The convolution of x is rewritten as a sum of
    three terms:

    - a transposed convolution of `a` with stride 2. Its 4x4 kernel is computed from the kernels of the
      convolution and of the 2x2 transposed convolution
    - a 3x3 convolution of `skip`
    - a map [1, 2H, 2W, O] for the bias of `up`. The map is the same for all images. Its values at the edges
      differ from its inner values, because the convolution pads `up` with zeros.

    The rule does not apply if `policy.direct_convolutions_are_faster` is true for the dtype of x.
    """
    fits = (*kernel.shape[:2], strides, padding) == (3, 3, 1, "SAME")
    if not fits or policy.direct_convolutions_are_faster(x.dtype):
        return None
    parts = graph.concatenated(x) or ()
    up, up_bias = graph.before_bias(parts[0]) if len(parts) == 2 else (None, None)
    call = graph.call_that_made(up, ["conv2d_transpose"], uses=1) if up_bias is not None else None
    if not call or (*call.kernel.shape[:2], call.strides, call.padding) != (2, 2, 2, "SAME"):
        return None
    policy.count("transpose_then_conv")
    skip, up_bias = parts[1], tf.cast(up_bias, tf.float32)
    between = call.kernel.shape[2]
    kernel_of_up, kernel_of_skip = tf.split(kernel, [between, skip.shape[-1]], axis=2)
    turned = tf.transpose(kernel_of_up[::-1, ::-1], [0, 1, 3, 2])  # [3, 3, O, channels of `up`]
    merged = tf.tensordot(turned, call.kernel, [[3], [2]])  # [3, 3, O, 2, 2, I]
    merged = tf.tensordot(SHIFTS, merged, [[2, 3, 4, 5], [3, 4, 0, 1]])  # [4, 4, O, I]
    batch, height, width, _ = tf.unstack(tf.shape(skip))
    shape = [batch, height, width, kernel.shape[3]]
    from_a = tf.nn.conv2d_transpose(call.x, tf.cast(merged, x.dtype), shape, 2, "SAME")
    ones = tf.ones([1, height, width, 1], x.dtype)
    bias_kernel = tf.tensordot(kernel_of_up, up_bias, [[2], [0]])
    from_bias = tf.nn.conv2d(ones, tf.cast(bias_kernel[:, :, None], x.dtype), 1, "SAME")  # [1, 2H, 2W, O]
    return from_a + winograd.conv2d(skip, kernel_of_skip, 1, "SAME") + from_bias


def frozen_norm(x, gamma, beta, mean, variance, epsilon):
    """Rewrite a convolution and the following batch normalisation as one convolution with a bias.

    x: the output of the convolution. gamma, beta, epsilon: see `primitives.batch_norm_inference`. mean,
    variance: the moving averages, which are not updated here. The normalisation multiplies each channel by a
    scale and adds an offset. The rule multiplies the kernel by the scale, and the offset becomes the bias.
    TensorFlow can then fuse the convolution, the bias and the activation that follows.
    """
    call = graph.call_that_made(x, ["conv2d", "depthwise_conv2d"], uses=0)
    if not call:
        return None
    policy.count("frozen_norm")
    # No gradients flow to mean and variance, as in TensorFlow's op for batch normalisation.
    mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    kernel = tf.cast(call.kernel * tf.reshape(scale, [-1, call.kernel.shape[3]]), x.dtype)
    convolve, strides = tf.nn.conv2d, call.strides
    if call.primitive == "depthwise_conv2d":
        convolve, strides = tf.nn.depthwise_conv2d, [1, strides, strides, 1]
    y = convolve(call.x, kernel, strides=strides, padding=call.padding)
    return fusion.bias_add(y, tf.cast(beta - mean * scale, x.dtype))
