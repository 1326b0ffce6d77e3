"""Exact rewrites of convolution primitives that need less work on CPUs.

`conv2d`, `conv2d_transpose`, `depthwise_conv2d` and `batch_norm_inference` are drop-in
versions of TensorFlow's primitives; `core.ops` calls them. Called eagerly they are the
primitive. In a traced graph a rule may replace the call by an algebraic rewrite that has
the same value up to rounding. A rule looks at the ops that really produced its input, so
an edited op or model line either still matches, with the edit in it, or runs as written.

    primitives.py     the drop-ins and which rules they try
    winograd.py       wide 3x3 convolutions with half of the multiplications
    transposed.py     transposed convolutions whose kernel gradient is products of matrices
    merged.py         rules over two or three ops: up-sampling, concatenation, normalisation
    fused_adam.py     Adam's formula as one op, with the same bits, on all devices and in both modes
    graph.py          what produced a tensor
    policy.py         on or off, and how often each rule was applied

One limit: the gradient with respect to an intermediate tensor that a rule has bypassed is
None. Use --lowering=off, or `disabled()`, to study such gradients.
"""

from core.lowering.policy import MODES, applied, configure, described, disabled, enabled
from core.lowering.primitives import batch_norm_inference, conv2d, conv2d_transpose, depthwise_conv2d

__all__ = [
    "MODES",
    "applied",
    "batch_norm_inference",
    "configure",
    "conv2d",
    "conv2d_transpose",
    "depthwise_conv2d",
    "described",
    "disabled",
    "enabled",
]
