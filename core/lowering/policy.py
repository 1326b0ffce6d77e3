"""When rewrites are used, and how often each rule was applied."""

import collections
import contextlib
import contextvars

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
    """A block in which traced graphs keep TensorFlow's own primitives.

    For exports, which go to other devices and should store 3x3 kernels as they are, and for
    receptive-field probes, which test outputs for being exactly zero. The block covers the
    thread that entered it.
    """
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def enabled():
    """True on a machine without a GPU, in mode "auto" and outside of `disabled`."""
    return _mode == "auto" and not _disabled.get() and not tf.config.list_physical_devices("GPU")


def count(rule):
    """Note one application of a rule, given by its name, in a traced graph."""
    _applied[rule] += 1


def applied():
    """A copy of the counts since the start of the process: Counter of rule name -> applications.

    A rule counts once per matching call in each graph that is traced. The difference of two
    copies tells which rules the graphs traced in between use.
    """
    return _applied.copy()


def described(counts):
    """Counts of rules as text: "4 x nearest_then_skip, 13 x winograd", or "no rule applied"."""
    rules = ", ".join(f"{count} x {rule}" for rule, count in sorted(counts.items()))
    return rules or "no rule applied"
