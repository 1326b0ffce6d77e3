"""Write the class probabilities of an image to files, strip by strip.

A strip is a block of consecutive rows of the image.
There are two formats. In both, NAME is the name of the image's result files.

npy: one file NAME_probabilities.npy, float16 [height, width, classes].
png: one file NAME_probability_ID.png for each class id ID, 16-bit greyscale. Sample value 65535 is
     probability 1.
"""

import contextlib

import numpy as np
import tensorflow as tf

from core.inference import png
from core.runtime import files

WHITE = 2**16 - 1  # the sample value for probability 1 in a 16-bit PNG file
FORMATS = ("npy", "png")


def encode(probabilities, kind):
    """Convert class probabilities to the values that a file stores. The shape does not change.

    probabilities: float32, 0 to 1. kind: the format of the file. "npy": the values are the probabilities as
    float16. "png": the values are uint16, from 0 for probability 0 to 65535 for probability 1.
    """
    if kind == "npy":
        return tf.cast(probabilities, tf.float16)
    return tf.cast(tf.round(probabilities * WHITE), tf.uint16)


def paths(prefix, kind, classes):
    """Return the paths of the files with the class probabilities of one image, a list of str.

    prefix: the beginning of each path, up to and including NAME. kind: one of FORMATS. If kind is None, the
    list is empty. classes: the number of classes.
    """
    if kind == "npy":
        return [f"{prefix}_probabilities.npy"]
    return [f"{prefix}_probability_{index}.png" for index in range(classes)] if kind == "png" else []


def is_ours(path):
    """True if the file at path is an .npy file as `writer` creates it: float16 [height, width, classes]."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array.dtype == "<f2" and array.ndim == 3
    except Exception:  # the file is damaged or not an .npy file
        return False


@contextlib.contextmanager
def writer(places, width, height, classes):
    """Context manager that creates the files of one image and yields a function that appends a strip to them.

    places: the `Path`s of the files, in the order that `paths` returns. width, height: the size of the image
    in pixels. A strip is an array [rows, width, classes], as returned by `encode`. The strips must have
    `height` rows in total. The files appear when the block ends. Raises InputError if a file cannot be
    written.
    """
    with contextlib.ExitStack() as stack:
        if places[0].suffix == ".npy":
            file = stack.enter_context(files.atomic(places[0]))
            header = {"descr": "<f2", "fortran_order": False, "shape": (height, width, classes)}
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda rows: file.write(np.ascontiguousarray(rows, "<f2"))
        else:
            appends = [
                stack.enter_context(png.writer(place, width, height, colour=png.GREY, bits=16))
                for place in places
            ]

            def append(rows):
                """Append a strip: each file gets the probabilities of one class. rows: see `writer`."""
                for index, append_class in enumerate(appends):
                    append_class(rows[..., index])

            yield append
