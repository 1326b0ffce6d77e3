"""Metrics and pictures for TensorBoard, if the project's extra `tensorboard` is installed."""

import importlib.util

import numpy as np
import tensorflow as tf

from core.runtime.errors import InputError, warn_on_failure


def writer(folder):
    """Return a summary writer for `folder/tensorboard`, or None, with a warning, if it cannot be made.

    Raises InputError if the extra is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs an extra: pip install -e '.[tensorboard]'.")
    with warn_on_failure(f"the TensorBoard files in {folder / 'tensorboard'}"):
        return tf.summary.create_file_writer(str(folder / "tensorboard"))


def write(writer, row, panel):
    """Write the metrics of an epoch (name -> number) and the picture of its predictions (PIL image)."""
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            tf.summary.scalar(name, value)
        tf.summary.image("predictions", np.asarray(panel)[None])
    writer.flush()
