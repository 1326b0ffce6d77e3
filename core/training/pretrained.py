"""Define the flags for the encoder of mobilenet_unet; download and load Keras' ImageNet weights for it."""

import os
import textwrap
import warnings
from pathlib import Path

import tensorflow as tf
from absl import flags

from core.runtime import downloads, files
from core.runtime.errors import InputError
from core.training import common_flags

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{}_no_top.h5"
)
SIZES = (96, 128, 160, 192, 224)  # image sides, in pixels, for which Keras publishes weights


def define_flags(values):
    """Define the flags for the encoder of `core.models.mobilenet_unet`.

    values: the `flags.FlagValues` in which the flags are defined.
    """
    new = common_flags.Definer(values)
    source = (
        "Initial weights of the encoder of mobilenet_unet. imagenet: Keras' ImageNet weights, downloaded"
        " once. A path: the weights in this Keras .h5 or .weights.h5 file. none: random weights; useful only"
        " with --train_encoder and without --freeze_encoder_norm."
    )
    flags.DEFINE_string("encoder_weights", "imagenet", source, **new.own)
    trained = (
        "Train the encoder of mobilenet_unet, including its batch normalisation. By default, only the decoder"
        " is trained."
    )
    new.switch("train_encoder", False, trained)
    frozen = (
        "With --train_encoder: train the encoder's convolutions, but not its batch normalisation, which keeps"
        " its initial scales, offsets and moving averages."
    )
    new.switch("freeze_encoder_norm", False, frozen)
    needed = "--freeze_encoder_norm needs --train_encoder"
    new.needs("freeze_encoder_norm", "train_encoder", [True], needed)


def initialise(weights, source, size):
    """Assign pretrained weights to the variables of a MobileNetV2 encoder.

    weights: see `load`. source: the value of --encoder_weights. If source is "none", nothing is assigned.
    size: the height and width of the training images, in pixels. Keras publishes different ImageNet weights
    for different sizes. Raises InputError if `download` or `load` does.
    """
    if source != "none":
        load(weights, download(size) if source == "imagenet" else source)


def download(size):
    """Return the path of a Keras file with MobileNetV2's ImageNet weights for images of size x size pixels.

    If Keras publishes no weights for this size, the file has the weights for 224x224 pixels. If Keras' cache
    folder, `models` in $KERAS_HOME or ~/.keras, does not hold the file, the file is downloaded into this
    folder. A second process that needs the same file waits until the download ends. Raises InputError if the
    home folder is unknown, if the download fails, or if the folder cannot be written.
    """
    url = URL.format(size if size in SIZES else 224)
    home = os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")
    path = Path(home) / "models" / url.rpartition("/")[2]
    cure = (
        "download the file on another machine and pass its path as --encoder_weights, or train the encoder"
        " from random weights with --encoder_weights=none --train_encoder"
    )
    if home.startswith("~"):  # expanduser knows no home folder
        raise InputError(f"the home folder is unknown; set KERAS_HOME to a folder, or {cure}.")
    if not path.is_file():  # a file that exists may lie in a read-only folder, where no lock can be taken
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.lock(path.with_name(f".{path.name}.lock")):
                downloads.fetch(url, path, cure)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}); set KERAS_HOME to a folder that you"
                f" can write, or {cure}."
            ) from None
    return path


def load(weights, path):
    """Assign the weights in an `.h5` or `.weights.h5` file of Keras' MobileNetV2 to variables.

    weights: name -> `tf.Variable`, the variables of `core.models.mobilenet_v2`. Other weights in the file,
    such as the weights of a classifier, are not used. Keras matches the layers of an `.h5` file by their
    order, so the names of the layers in the file have no effect. Raises InputError if the file is missing, is
    damaged, or holds the weights of another network.
    """
    if not Path(path).is_file():
        raise InputError(
            f"--encoder_weights={path}: no such file; give imagenet, none or the path of a file."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras prints dozens of warnings for a file of another network
            model = _read(path)
    except tf.errors.OpError:  # a lost worker or a full GPU, so the file may be undamaged
        raise
    except Exception as error:  # HDF5 and Keras raise several exception classes for damaged files
        raise InputError(
            f"{path}: damaged, or not the weights of Keras' MobileNetV2 at width 1.0"
            f" ({textwrap.shorten(str(error), 300)}); if a download was interrupted, delete the file and try"
            " again, otherwise pass another file as --encoder_weights."
        ) from None
    values = {variable.path.replace("moving_", ""): variable.numpy() for variable in model.variables}
    for name, variable in weights.items():
        variable.assign(values[name])


def _read(path):
    """Return a Keras MobileNetV2 with the weights in a file.

    Sets Keras' defaults to float32 and channels_last. The model has a classifier if the file has the weights
    of a classifier. Raises ValueError if the file holds the weights of another network. Keras raises other
    exceptions if the file is damaged.
    """
    tf.keras.backend.set_floatx("float32")  # the user's keras.json may set other defaults
    tf.keras.backend.set_image_data_format("channels_last")
    errors = []
    for classifier in (False, True):
        model = tf.keras.applications.MobileNetV2(include_top=classifier, weights=None)
        try:
            model.load_weights(path)
            return model
        except ValueError as error:  # the file and the model have different layers
            errors.append(error)
    raise errors[0]
