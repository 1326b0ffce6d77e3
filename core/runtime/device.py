"""Describe the device that TensorFlow computes on, enable deterministic ops, and report versions."""

import importlib.metadata
import os
import platform

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config

# One of these files exists if an NVIDIA driver is installed, on Linux or in WSL.
DRIVERS = ("/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")


def set_up(flags):
    """Enable deterministic ops if required, and return a description of the device, such as "2 CPU cores".

    flags: parsed flags. The function uses --deterministic, --xla and --strategy. --deterministic decides
    whether ops are deterministic. If this flag is not given, ops are deterministic if TensorFlow finds no GPU
    and --xla is not used. Deterministic ops are a setting of the process: while they are enabled, random ops
    without a seed raise RuntimeError. --strategy decides how many GPUs the description counts.
    """
    gpus = tf.config.list_physical_devices("GPU")
    deterministic = flags.deterministic
    if deterministic is None:  # XLA's gradient of max-pooling is not deterministic
        deterministic = not gpus and not flags.xla
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    else:
        config.disable_op_determinism()  # an earlier training or the user may have enabled it
    if gpus:
        count = 1 if flags.strategy == "single" else len(gpus)
        return f"{count} x {tf.config.experimental.get_device_details(gpus[0])['device_name']}"
    _warn_of_unused_gpu()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores"


def _warn_of_unused_gpu():
    """Print a warning if the machine has an NVIDIA driver. Called only if TensorFlow finds no GPU.

    Prints nothing if CUDA_VISIBLE_DEVICES is "" or -1, which hide all GPUs. TensorFlow's own message about a
    missing GPU is not visible, because `core/__init__.py` hides start-up messages.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")  # job schedulers set it to the GPUs of the job
    cure = "run pip install 'tensorflow[and-cuda]'; with TF_CPP_MIN_LOG_LEVEL=0, TensorFlow prints the reason"
    if platform.machine() == "aarch64":
        cure = "TensorFlow's packages for ARM have no GPU support, so use another build or a container"
    if visible not in ("", "-1") and any(map(os.path.exists, DRIVERS)):
        print(f"warning: TensorFlow does not find this machine's NVIDIA GPU and uses the CPU; {cure}.")


def versions():
    """Return the versions of Python, TensorFlow, Keras and NumPy: a dict, name -> version as text."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version("keras"),  # from the metadata, because `import keras` is slow
        "numpy": np.__version__,
    }
