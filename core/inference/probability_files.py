"""Files of class probabilities, written in strips.

npy: NAME_probabilities.npy, float16 [height, width, classes].
png: NAME_probability_CLASS.png for each class id, 16-bit greyscale, 65535 for probability 1.
"""

import contextlib

import numpy as np
import tensorflow as tf

from core.inference import png
from core.runtime import files

WHITE = 2**16 - 1
FORMATS = ("npy", "png")


def encode(probabilities, kind):
    """Convert float32 probabilities to the dtype of a file: float16 for npy, uint16 for png."""
    if kind == "npy":
        return tf.cast(probabilities, tf.float16)
    return tf.cast(tf.round(probabilities * WHITE), tf.uint16)


def paths(prefix, kind, classes):
    """Return the paths of an image's files. prefix: their path up to NAME; classes: the number of classes."""
    if kind == "npy":
        return [f"{prefix}_probabilities.npy"]
    return [f"{prefix}_probability_{index}.png" for index in range(classes)] if kind == "png" else []


@contextlib.contextmanager
def writer(places, width, height, classes):
    """Context manager that yields a function to append rows of `encode`d probabilities [h, width, classes].

    places: the paths returned by `paths`. The files appear only when they are complete, at the end of
    the block. Raises InputError if a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if places[0].suffix == ".npy":
            file = stack.enter_context(files.atomic(places[0]))
            header = {"descr": "<f2", "fortran_order": False, "shape": (height, width, classes)}
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda rows: file.write(rows.astype("<f2").tobytes())
        else:
            appends = [
                stack.enter_context(png.writer(place, width, height, colour=png.GREY, bits=16))
                for place in places
            ]

            def append(rows):
                for index, append_class in enumerate(appends):
                    append_class(rows[..., index])

            yield append
