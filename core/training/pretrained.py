"""Published weights of MobileNetV2: Keras' own files -> our variables."""

import contextlib
import socket
import textwrap
import warnings
from pathlib import Path

import tensorflow as tf

from core.runs import checkpoint
from core.runtime.errors import InputError

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{}_no_top.h5"
)
SIZES = (96, 128, 160, 192, 224)  # there is a file for each size that it was trained at
PATIENCE = 5  # seconds that a server may be silent


def download(size):
    """Path of the ImageNet weights that were trained at size x size, or else at 224x224.

    As `tf.keras.applications.MobileNetV2` does: the same file, in the same cache,
    with the same progress bar. Raises InputError if it is neither there nor to be had.
    """
    url = URL.format(size if size in SIZES else 224)
    try:
        with _socket_timeout(PATIENCE):
            return tf.keras.utils.get_file(origin=url, cache_subdir="models")
    except Exception as error:  # Keras raises nothing narrower
        reason = str(error).rpartition(" -- ")[2]  # Keras puts the address before it
        raise InputError(
            f"--encoder_weights=imagenet cannot be downloaded ({reason}); fetch {url} elsewhere and"
            " pass its path as --encoder_weights, or start from scratch with --encoder_weights=none."
        ) from None


def load(weights, path):
    """Assign the values in a Keras `.h5` or `.weights.h5` file of the whole MobileNetV2.

    weights: of `models.mobilenet_v2`. Keras reads the file, with a classifier in it
    or without; an `.h5` by the order of its layers, whose names Keras has changed since.
    Raises InputError for a file that is missing, damaged, or of another network.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; see --encoder_weights.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another network Keras says so dozens of times
            model = _read(path)
    except Exception as error:  # HDF5 and Keras each have several for damage
        raise InputError(
            f"{path}: damaged, or not weights of Keras' MobileNetV2 at width 1.0"
            f" ({textwrap.shorten(str(error), 300)}); if a download left it, delete it and try again,"
            " else take another file."
        ) from None
    values = {variable.path.replace("moving_", ""): variable.numpy() for variable in model.variables}
    checkpoint.restore(weights, {name: values[name] for name in values if name in weights}, path)


def _read(path):
    """The Keras model of the file, without a classifier or with one, as that is in it."""
    tf.keras.backend.set_floatx("float32")  # the user's keras.json may say otherwise
    tf.keras.backend.set_image_data_format("channels_last")
    errors = []
    for classifier in (False, True):
        model = tf.keras.applications.MobileNetV2(include_top=classifier, weights=None)
        try:
            model.load_weights(path)
            return model
        except ValueError as error:  # the file has other layers
            errors.append(error)
    raise errors[0]


@contextlib.contextmanager
def _socket_timeout(seconds):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
