"""Decide whether rewrites are used, and count how often each rule was applied."""

import collections
import contextlib
import contextvars
import functools
from pathlib import Path

import tensorflow as tf

MODES = ("auto", "off")

_mode = "auto"
_disabled = contextvars.ContextVar("lowering disabled", default=False)
_applied = collections.Counter()


def configure(mode):
    """Set the mode of this process: "auto" allows rewrites on CPUs, "off" allows none."""
    global _mode
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {mode!r}")
    _mode = mode


@contextlib.contextmanager
def disabled():
    """Context manager in which traced graphs keep TensorFlow's own primitives.

    Used for exports, which run on other devices and should store 3x3 kernels as they are, and for
    receptive-field probes, which test whether outputs are exactly zero. It affects only the
    current thread.
    """
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def enabled():
    """True on a machine without a GPU, in mode "auto" and outside of `disabled`."""
    return _mode == "auto" and not _disabled.get() and not tf.config.list_physical_devices("GPU")


def direct_convolutions_are_faster(dtype):
    """True for bfloat16 on a processor with AMX, where saving multiplications does not pay off."""
    return dtype == tf.bfloat16 and _has_amx()


@functools.cache
def _has_amx():
    """True if /proc/cpuinfo lists AMX for bfloat16; False on systems other than Linux."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def count(rule):
    """Count one application of a rule, given by its name, in a traced graph."""
    _applied[rule] += 1


def applied():
    """Return a copy of the counts since the start of the process: Counter of rule name -> applications.

    A rule counts once per matching call in each traced graph. The difference of two copies tells
    which rules the graphs traced in the meantime use.
    """
    return _applied.copy()


def described(counts):
    """Format counts of rules as text: "4 x nearest_then_skip, 13 x winograd", or "no rule applied"."""
    rules = ", ".join(f"{count} x {rule}" for rule, count in sorted(counts.items()))
    return rules or "no rule applied"
