"""Keras' progress bar on a terminal; nothing in a log file."""

import sys

import tensorflow as tf


def bar(total, unit, *, stateful=()):
    """A `tf.keras.utils.Progbar` of total units; silent unless stdout is a terminal."""
    return tf.keras.utils.Progbar(
        total, unit_name=unit, stateful_metrics=stateful, verbose=int(sys.stdout.isatty())
    )
