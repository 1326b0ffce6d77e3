"""Faster exact rewrites of convolutions on CPUs ("lowering").

`conv2d`, `conv2d_transpose`, `depthwise_conv2d` and `batch_norm_inference` are drop-in
versions of TensorFlow's primitives; `core.ops` calls them. When called eagerly they are the
primitives. In a traced graph, a rule may replace the call by an algebraic rewrite that gives
the same value up to rounding. A rule inspects the ops that produced its input in the graph.
After an edit of an op or of a model, either the rule still matches and its rewrite includes
the edit, or TensorFlow's primitive runs.

    primitives.py     the drop-in versions, and which rules they try
    winograd.py       3x3 convolutions of many channels with half of the multiplications
    transposed.py     transposed convolutions with a kernel gradient by matrix products
    merged.py         rules for two or three ops: up-sampling, concatenation, normalisation
    fused_adam.py     Adam's formula as one op, bit-identical, on all devices, also with --lowering=off
    graph.py          which op produced a tensor
    policy.py         whether rules are enabled, and how often each was applied

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
