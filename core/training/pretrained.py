"""Load the published weights of MobileNetV2 from Keras' files."""

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
SIZES = (96, 128, 160, 192, 224)  # image sides for which Keras publishes weights
SOCKET_TIMEOUT = 5  # the download fails after this many seconds without data


def download(size):
    """Return the path of ImageNet weights trained at size x size; download them if they are not cached.

    If none are published for this size, the weights for 224x224 are used. File, cache folder and
    progress bar are those of `tf.keras.applications.MobileNetV2`. Raises InputError if the
    download fails.
    """
    url = URL.format(size if size in SIZES else 224)
    try:
        with _socket_timeout(SOCKET_TIMEOUT):
            return tf.keras.utils.get_file(origin=url, cache_subdir="models")
    except Exception as error:  # Keras raises no narrower class
        reason = str(error).rpartition(" -- ")[2]  # the text before the separator is the address
        raise InputError(
            f"--encoder_weights=imagenet cannot be downloaded ({reason}); fetch {url} elsewhere and"
            " pass its path as --encoder_weights, or start from scratch with --encoder_weights=none."
        ) from None


def load(weights, path):
    """Assign the values in a Keras file of MobileNetV2, `.h5` or `.weights.h5`, to variables.

    weights: the variables of `models.mobilenet_v2`, by name. The file may contain a classifier.
    The values of an `.h5` file are matched by the order of layers, because Keras has renamed
    layers. Raises InputError if the file is missing, damaged, or of another network.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; see --encoder_weights.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras prints dozens of warnings for a file of another network
            model = _read(path)
    except Exception as error:  # HDF5 and Keras raise several exception classes for damaged files
        raise InputError(
            f"{path}: damaged, or not weights of Keras' MobileNetV2 at width 1.0"
            f" ({textwrap.shorten(str(error), 300)}); delete it if a download was interrupted and try"
            " again, otherwise name another file."
        ) from None
    values = {variable.path.replace("moving_", ""): variable.numpy() for variable in model.variables}
    checkpoint.restore(weights, {name: values[name] for name in values if name in weights}, path)


def _read(path):
    """Return a Keras model with the file's values; it has a classifier if the file has one."""
    tf.keras.backend.set_floatx("float32")  # the user's keras.json may set another dtype
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
    """Context manager in which new sockets have a timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
