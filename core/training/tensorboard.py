"""Write metrics and pictures for TensorBoard, which the project's extra `tensorboard` installs."""

import importlib.util

import numpy as np
import tensorflow as tf

from core.runtime.errors import InputError, warn_on_failure


def writer(folder):
    """Return a `tf.summary` writer for `folder/tensorboard`.

    If the folder cannot be written, prints a warning and returns None. Raises InputError if TensorBoard is
    not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: TensorBoard is not installed; pip install -e '.[tensorboard]'.")
    with warn_on_failure(f"the TensorBoard files in {folder / 'tensorboard'}"):
        return tf.summary.create_file_writer(str(folder / "tensorboard"))


def write(writer, row, panel):
    """Write the metrics and the picture of an epoch.

    row: name -> number, with the key "epoch". panel: PIL image of predictions.
    """
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            tf.summary.scalar(name, value)
        tf.summary.image("predictions", np.asarray(panel)[None])
    writer.flush()
