"""Rules that replace ops in graphs by faster computations of the same values ("lowering").

`conv2d`, `conv2d_transpose`, `depthwise_conv2d`, `batch_norm_inference`, `bias_add` and `leaky_relu` are
wrappers of TensorFlow's primitives. `core.ops` calls them. Called eagerly, a wrapper runs TensorFlow's
primitive.

While a graph is traced on a machine without a GPU, a rule may replace the call of a wrapper by other ops,
which compute the same values up to rounding. The rule first inspects the arguments of the call and the ops
that produced these arguments. The rule replaces the call only if these arguments and ops match the rule's
pattern. An edit of an op or of a model therefore always has an effect: either the pattern still matches, and
the rule computes the edited network, or TensorFlow's primitive runs.

    primitives.py     the wrappers, which try the rules
    winograd.py       a rule that halves the number of multiplications in 3x3 convolutions of many channels
    transposed.py     rules for transposed convolutions: a faster gradient of the kernel, and in prediction,
                      a convolution that TensorFlow can fuse with the ops after it
    merged.py         rules that merge a convolution with ops before it, or with the normalisation after it,
                      and a rule that rewrites a transposed convolution of concatenated maps as a sum
    fusion.py         rules for prediction: they arrange ops so that TensorFlow fuses several ops into one
    fused_adam.py     Adam's formula as one op, used on all devices and for both values of --lowering
    graph.py          functions that find the ops that produced a tensor
    policy.py         whether rules are enabled, and how often each rule was applied

The rules have three limits. First, a rule may bypass an intermediate tensor of the network, such as a
concatenation. The gradient with respect to such a tensor lacks the part that flows through the op that the
rule replaced. If no other op reads the tensor, the gradient is None. The gradients of the weights are
complete. To study the gradient of an intermediate tensor, use --lowering=off or `disabled()`. Second, the
rules do not see `tape.stop_recording()`. To stop a gradient, use `tf.stop_gradient`. Third, a step function,
such as `tf.sign`, can turn a rounding difference into another value. For networks with exact values, such as
binary networks, use --lowering=off.
"""

from core.lowering.policy import HELP, MODES, applied, configure, described, disabled, prediction  # noqa: F401
from core.lowering.primitives import (  # noqa: F401
    batch_norm_inference,
    bias_add,
    conv2d,
    conv2d_transpose,
    depthwise_conv2d,
    leaky_relu,
)
