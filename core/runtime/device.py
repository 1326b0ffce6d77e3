"""The device that TensorFlow computes on, and whether its ops are deterministic."""

import importlib.metadata
import os
import platform

import numpy as np
import tensorflow as tf


def set_up(flags):
    """Enable deterministic ops if the flags ask for them, by default on a CPU without XLA.

    Returns the device as text, such as "2 CPU cores".
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
    """Return the versions of Python and of the packages that compute: name -> text."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version("keras"),  # importing it takes seconds
        "numpy": np.__version__,
    }
