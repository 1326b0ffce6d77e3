"""The device that TensorFlow computes on, and whether its ops are deterministic."""

import importlib.metadata
import os
import platform

import numpy as np
import tensorflow as tf

DRIVERS = ("/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")  # one exists if there is a GPU


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
    _warn_of_unused_gpu()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores"


def _warn_of_unused_gpu():
    """Print a warning if the machine has an NVIDIA GPU that TensorFlow does not find.

    TensorFlow's own message is not visible, because `core` suppresses its start-up messages.
    """
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    if not hidden and any(map(os.path.exists, DRIVERS)):
        print(
            "warning: TensorFlow does not find this machine's NVIDIA GPU, so the CPU computes; install"
            " '.[gpu]' with pip, or see with TF_CPP_MIN_LOG_LEVEL=0 which library is missing."
        )


def versions():
    """Return the versions of Python, TensorFlow, Keras and NumPy: name -> text."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version("keras"),  # importing it takes seconds
        "numpy": np.__version__,
    }
