"""The device that TensorFlow computes on, and whether it computes alike each time."""

import os
import platform

import numpy as np
import tensorflow as tf


def set_up(flags):
    """Make ops deterministic if the flags ask for it, by default on a CPU without XLA.

    Returns in words what it computes on.
    """
    gpus = tf.config.list_physical_devices("GPU")
    by_default = not gpus and not flags.xla  # XLA's gradient of max-pooling is not deterministic
    if by_default if flags.deterministic is None else flags.deterministic:
        tf.config.experimental.enable_op_determinism()
    if gpus:
        count = 1 if flags.strategy == "single" else len(gpus)
        return f"{count} x {tf.config.experimental.get_device_details(gpus[0])['device_name']}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores"


def versions():
    """Of what computes: name -> text."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": tf.keras.__version__,
        "numpy": np.__version__,
    }
