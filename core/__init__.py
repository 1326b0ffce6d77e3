"""The library under the experiments: raw TensorFlow ops, networks, data, training.

Importing it imports TensorFlow with its start-up noise kept out: the C++ side
logs some lines about missing GPU libraries before it heeds any log level, so
stderr is closed for the length of the import. TF_CPP_MIN_LOG_LEVEL=0 shows all.
"""

import os
import sys


def _import_quietly():
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.get_logger().setLevel("WARNING")  # strategies tell of every collective operation
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


# a GPU's memory as it is needed, not all of it at once; read when the GPU is first used
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
    _import_quietly()
