"""The library that the experiments use: TensorFlow ops, networks, data pipelines and training.

Importing this package hides TensorFlow's start-up messages. TensorFlow's C++ code prints lines about
missing GPU libraries before this code reads any log level. This package therefore imports TensorFlow while
standard error is redirected to the null device. To see the messages, set the environment variable
TF_CPP_MIN_LOG_LEVEL=0. If standard error is closed, nothing is redirected.
"""

import os
import platform
import sys

__version__ = "0.1.0"


def _import_quietly():
    """Import TensorFlow while standard error is redirected to the null device."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.get_logger().setLevel("WARNING")  # hides an INFO line for each all-reduce
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


# Let TensorFlow allocate a GPU's memory as it is needed, instead of all at once at the first use.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# On x86 processors without AVX-512, TensorFlow uses oneDNN only if this variable is 1. oneDNN computes most
# convolutions faster. To switch oneDNN off, set the variable to 0.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Make `tf.keras` Keras 3 with the TensorFlow backend, whatever values the user's environment variables
# KERAS_BACKEND and TF_USE_LEGACY_KERAS have. This is possible only before Keras is imported.
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_USE_LEGACY_KERAS"] = "0"

if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0" and sys.stderr is not None:
    _import_quietly()
