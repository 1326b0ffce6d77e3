"""Write metrics and pictures for TensorBoard. It needs the package `tensorboard`."""

import importlib.util

import numpy as np
import tensorflow as tf

from core.runtime.errors import InputError, warn_on_failure


def writer(folder):
    """Return a `tf.summary` writer for the folder `folder/tensorboard`.

    If this folder cannot be written, the function prints a warning and returns None. Raises InputError if
    TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: TensorBoard is not installed; run pip install tensorboard.")
    with warn_on_failure(f"the TensorBoard files in {folder / 'tensorboard'}"):
        return tf.summary.create_file_writer(str(folder / "tensorboard"))


def write(writer, row, panel):
    """Write the metrics and the picture of an epoch to the folder of a `tf.summary` writer.

    row: the row of the epoch, see `core.training.history`. panel: a PIL image that shows predictions.
    """
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            tf.summary.scalar(name, value)
        tf.summary.image("predictions", np.asarray(panel)[None])
    writer.flush()
