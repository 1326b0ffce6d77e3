"""Decide whether the rules of `core.lowering` are enabled, and count how often each rule was applied."""

import collections
import contextlib
import contextvars
import functools
from pathlib import Path

import tensorflow as tf

MODES = ("auto", "off")
HELP = (  # of the flag --lowering
    "auto: on CPUs, compiled functions replace some ops of the network by faster computations with the same"
    " result up to rounding. off: TensorFlow computes every op of the network as it is written."
)

_mode = "auto"
_disabled = contextvars.ContextVar("lowering disabled", default=False)
_predicting = contextvars.ContextVar("predicting", default=False)
_applied = collections.Counter()


def configure(mode):
    """Set the mode of this process: "auto" enables rules on machines without a GPU, "off" disables rules."""
    global _mode
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {mode!r}")
    _mode = mode


def disabled():
    """Context manager: graphs that the current thread traces inside the with block are traced without rules.

    Exports use this context manager, because exported graphs may run on any device and should hold the 3x3
    kernels themselves, not transformed kernels. Measurements of the receptive field use it too. They compare
    the outputs for two images, exactly or with a small tolerance, and rounding in a rule could make equal
    outputs differ.
    """
    return _true_inside(_disabled)


def prediction():
    """Context manager: graphs that the current thread traces inside the with block may use all rules.

    Outside of the block, the rules for prediction (see `core.lowering.fusion` and `core.lowering.transposed`)
    are not used, because they make a graph with a backward pass slower. A graph that is traced inside of the
    block nevertheless has correct gradients.
    """
    return _true_inside(_predicting)


def predicting():
    """True if the caller is inside of a `with prediction()` block."""
    return _predicting.get()


@contextlib.contextmanager
def _true_inside(variable):
    token = variable.set(True)
    try:
        yield
    finally:
        variable.reset(token)


def enabled():
    """True if the machine has no GPU, the mode is "auto" and the caller is not inside of `disabled`."""
    return _mode == "auto" and not _disabled.get() and not tf.config.list_physical_devices("GPU")


def direct_convolutions_are_faster(dtype):
    """True for bfloat16 on a processor with AMX (Intel's matrix instructions).

    On such a processor, TensorFlow's convolutions are faster than `winograd` and `transpose_then_conv`, so
    these two rules are not used, and prediction uses `conv2d_of_blocks`. No other rule depends on AMX.
    """
    return dtype == tf.bfloat16 and _has_amx()


@functools.cache
def _has_amx():
    """True if /proc/cpuinfo lists AMX for bfloat16; False on systems without this file."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def count(rule):
    """Add 1 to the number of applications of a rule. rule: the rule's name."""
    _applied[rule] += 1


def applied():
    """Return how often each rule was applied since the start of the process: Counter, rule name -> number.

    A rule is applied when a matching call is traced. To count the rules in one graph, call this function
    before and after the graph is traced, and subtract the first result from the second.
    """
    return _applied.copy()


def described(counts):
    """Format counts as text, such as "4 x nearest_then_skip, 13 x winograd", or "no rule applied".

    counts: rule name -> number of applications.
    """
    rules = ", ".join(f"{count} x {rule}" for rule, count in sorted(counts.items()))
    return rules or "no rule applied"
