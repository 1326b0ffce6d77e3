"""Rules for prediction: they arrange ops so that TensorFlow fuses a convolution with the ops after it.

If TensorFlow uses oneDNN, its graph optimiser can replace up to four successive ops on CPUs by one op: a
convolution, the addition of a bias, the addition of another map, and an activation function, in this order.
The bias is required. TensorFlow uses oneDNN on x86 processors, where `core` switches oneDNN on, and on ARM
Neoverse V1. The fused op writes only its result to memory, while each separate op writes a map. The rules
below rewrite some sequences of ops that have another order, or no bias.

In training, the graph optimiser cannot fuse these ops, because the backward pass reads the values between
them. The rules therefore apply only inside of `policy.prediction`.
"""

import tensorflow as tf

from core.lowering import graph, policy, winograd


def conv2d_of_parts(x, kernel, strides, padding):
    """Rewrite a convolution of two concatenated maps as a sum of two convolutions, or return None.

    The concatenation is then not computed. `bias_add` and `leaky_relu` prepare the sum for fusion. The result
    is None if x is not a concatenation of two maps, or outside of `policy.prediction`. The result is also
    None if Winograd's algorithm applies to the convolution, because this algorithm is faster.
    """
    parts = graph.concatenated(x) or ()
    if len(parts) != 2 or not policy.predicting() or winograd.applies(x, kernel, strides, padding):
        return None
    policy.count("conv2d_of_parts")
    kernels = tf.split(tf.cast(kernel, x.dtype), [part.shape[-1] for part in parts], axis=2)
    first, second = (tf.nn.conv2d(part, each, strides, padding) for part, each in zip(parts, kernels))
    return first + second


def bias_add(x, bias):
    """Return `tf.nn.bias_add` of x [B, H, W, C] and bias [C].

    In prediction, the bias is added directly to a convolution in two cases. If x is the sum of a
    convolution and another map, the bias is added to the convolution before the other map is added. If x is
    `depth_to_space` of a convolution, as in `transposed.conv2d_transpose`, the bias is repeated for each
    pixel of a block and added before `depth_to_space`.
    """
    if not policy.predicting():
        return tf.nn.bias_add(x, bias)
    bias = _kept(bias)
    convolution, other = graph.convolution_and_other(x)
    if other is not None:
        policy.count("bias_before_sum")
        return tf.nn.bias_add(convolution, bias) + other
    convolution, block = graph.convolution_of_blocks(x)
    if convolution is not None:
        policy.count("bias_before_depth_to_space")
        return tf.nn.depth_to_space(tf.nn.bias_add(convolution, tf.tile(bias, [block**2])), block)
    return tf.nn.bias_add(x, bias)


def leaky_relu(x, slope):
    """Return `tf.nn.leaky_relu` of x [B, H, W, C]. slope: the slope for negative inputs.

    In prediction, if x is a convolution without bias, or the sum of such a convolution and another map, a
    bias of zeros is added to the convolution. Without a bias, TensorFlow fuses nothing.
    """
    convolution, other = graph.convolution_and_other(x) if policy.predicting() else (None, None)
    if convolution is None:
        return tf.nn.leaky_relu(x, slope)
    policy.count("leaky_relu")
    x = tf.nn.bias_add(convolution, _kept(tf.zeros(convolution.shape[3:], x.dtype)))
    return tf.nn.leaky_relu(x if other is None else x + other, slope)


def _kept(bias):
    """Return the bias in a form that TensorFlow's graph optimiser does not regard as constant.

    The graph optimiser removes the addition of a bias of constant zeros. Without a bias, it fuses nothing.
    """
    return tf.compat.v1.placeholder_with_default(bias, bias.shape)
