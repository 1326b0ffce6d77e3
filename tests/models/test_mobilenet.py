"""MobileNetV2 against Keras' model, and its U-Net against the tutorial's Keras code."""

import functools
import shutil
import socket
import threading
import types
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from core import losses, ops
from core.models import mobilenet_unet, mobilenet_v2
from core.runtime import cli, downloads, files
from core.runtime.errors import InputError
from core.training import optimizer, pretrained, step
from experiments import oxford_pets_mobilenet
from experiments.benchmark import keras_baselines


def keras_encoder(height, width, weights):
    """Return Keras' MobileNetV2 with our weights, and a Keras model with its five outputs for the decoder."""
    whole, taps = keras_baselines.encoder(height, width)
    assign(whole, weights)
    return whole, taps


def assign(model, weights):
    """Assign our weights to a Keras model that contains layers of MobileNetV2."""
    for variable in model.variables:
        value = weights.get(variable.path.replace("moving_", ""))
        if value is not None:
            variable.assign(value)


def randomise(weights):
    """Add noise to all scales, offsets and statistics of batch normalisation, so that none is 0 or 1."""
    for index, (name, variable) in enumerate(weights.items()):
        if variable.shape.rank == 1:
            noise = tf.random.stateless_uniform(variable.shape, [index, 7], -0.4, 0.4)
            variable.assign(variable + noise)
    return weights


def pictures(*shape):
    return tf.random.stateless_uniform(shape, [1, 2], 0, 255)


@pytest.fixture(scope="module")
def encoder_weights():
    return randomise(mobilenet_v2.init_weights(seed=3, trainable=True))


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory, encoder_weights):
    """Write encoder_weights to Keras files of four kinds; return the folder.

    new.weights.h5: written by `save_weights`. model.h5: a whole model. published.h5: as in `write_published`.
    topped.weights.h5: written by `save_weights` for a model that includes the classification layer.
    """
    folder = tmp_path_factory.mktemp("keras")
    whole, _ = keras_encoder(64, 64, encoder_weights)
    whole.save_weights(folder / "new.weights.h5")
    whole.save(folder / "model.h5")
    write_published(folder / "model.h5", folder / "published.h5")
    topped = keras.applications.MobileNetV2(weights=None)
    for variable, value in zip(topped.variables, whole.variables):
        variable.assign(value)
    topped.save_weights(folder / "topped.weights.h5")
    return folder


def write_published(model_file, path):
    """Copy the weights in a Keras model file to the file `path`, with changed layer names.

    The new file has the structure of the weights files that older Keras versions wrote and Keras published.
    """
    with h5py.File(model_file) as model, h5py.File(path, "w") as file:
        group = model["model_weights"]
        names = np.asarray(group.attrs["layer_names"]).astype(str)  # h5py returns text or bytes
        for name in names:
            group.copy(name, file, name=f"old_{name}")
        file.attrs["layer_names"] = [f"old_{name}" for name in names]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
def test_depthwise_convolution_equals_keras_at_any_size(size, stride):
    x = tf.random.stateless_normal([2, *size, 3], [0, 1])
    kernel = tf.random.stateless_normal([3, 3, 3, 1], [0, 2])
    pad = [(length % 2, 1) for length in size]  # the padding layers of Keras' MobileNetV2
    layer = keras.layers.DepthwiseConv2D(
        3, strides=stride, padding="same" if stride == 1 else "valid", use_bias=False
    )
    padded = x if stride == 1 else keras.layers.ZeroPadding2D(pad)(x)
    layer.build(padded.shape)
    layer.set_weights([kernel])
    ours = ops.depthwise_conv2d(x, kernel, stride=stride)
    np.testing.assert_allclose(ours, layer(padded), atol=1e-5)


def test_encoder_outputs_equal_keras(encoder_weights):
    """At 72x104 pixels, some feature maps have an odd height and width."""
    _, reference = keras_encoder(72, 104, encoder_weights)
    images = pictures(1, 72, 104, 3) / 128 - 1
    taps = mobilenet_v2.forward(encoder_weights, images)
    for name, tap, expected in zip(keras_baselines.TAPS, taps, reference(images), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(tap, expected, atol=1e-4, err_msg=name)
    assert tuple(tap.shape[-1] for tap in taps) == mobilenet_v2.TAP_CHANNELS


def test_batch_statistics_and_moving_averages_in_training_equal_keras():
    weights = randomise(mobilenet_v2.init_weights(seed=3, trainable=True))
    whole, reference = keras_encoder(64, 96, weights)
    images = pictures(2, 64, 96, 3) / 128 - 1
    taps = mobilenet_v2.forward(weights, images, training=True)
    for name, tap, expected in zip(keras_baselines.TAPS, taps, reference(images, training=True), strict=True):
        np.testing.assert_allclose(tap, expected, atol=1e-3, rtol=1e-3, err_msg=name)
    expected = {variable.path.replace("moving_", ""): variable for variable in whole.variables}
    for name, variable in weights.items():
        np.testing.assert_allclose(variable, expected[name], atol=1e-4, err_msg=name)


def decoder_of(weights):
    return {name: value for name, value in weights.items() if not name.startswith("encoder/")}


def keras_unet(weights):
    """Return the tutorial's Keras model with our weights, and the variables of its decoder."""
    model = keras_baselines.mobilenet_unet(mobilenet_unet.FILTERS, 3)
    (down,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    assign(down, mobilenet_unet.encoder(weights))
    decoder = [variable for layer in model.layers if layer is not down for variable in layer.variables]
    for variable, value in zip(decoder, decoder_of(weights).values(), strict=True):
        variable.assign(value)
    return model, decoder


def test_outputs_gradients_and_averages_of_the_whole_network_equal_keras():
    weights = randomise(mobilenet_unet.init_weights(seed=1, classes=3))
    reference, reference_decoder = keras_unet(weights)
    images, target = pictures(2, 64, 96, 3), tf.random.stateless_normal([2, 64, 96, 3], [5, 6])
    logits = mobilenet_unet.forward(weights, images)
    np.testing.assert_allclose(logits, reference(images, training=False), atol=1e-4)
    with tf.GradientTape() as tape, tf.GradientTape() as reference_tape:
        logits = mobilenet_unet.forward(weights, images, training=True)
        expected = reference(images, training=True)
        loss = tf.reduce_mean((logits - target) ** 2)
        reference_loss = tf.reduce_mean((expected - target) ** 2)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    decoder = decoder_of(weights)
    trained = {name: variable for name, variable in decoder.items() if variable.trainable}
    gradients = tape.gradient(loss, list(trained.values()))
    expected = reference_tape.gradient(reference_loss, reference.trainable_weights)
    for name, gradient, wanted in zip(trained, gradients, expected, strict=True):
        scale = np.abs(wanted).max()  # relative, because some tensors have only gradients below 1e-3
        np.testing.assert_allclose(gradient / scale, wanted / scale, atol=5e-5, err_msg=name)
    for name, wanted in zip(decoder, reference_decoder, strict=True):
        np.testing.assert_allclose(decoder[name], wanted, atol=1e-5, err_msg=name)


def test_image_sides_are_multiples_of_32_in_bfloat16():
    weights = mobilenet_unet.init_weights(seed=0, classes=3)
    for height, width in ((32, 32), (64, 96)):
        images = tf.cast(pictures(1, height, width, 3), tf.bfloat16)
        logits = mobilenet_unet.forward(weights, images, training=True, seed=[0, 0])
        assert logits.shape == (1, height, width, 3) and logits.dtype == tf.bfloat16


@pytest.mark.parametrize(
    "options, changed",
    [
        ({}, ()),
        ({"train_encoder": True, "freeze_encoder_norm": True}, ("kernel",)),
        ({"train_encoder": True}, ("kernel", "gamma", "beta", "mean", "variance")),
    ],
)
def test_a_training_step_changes_only_the_selected_variables_of_the_encoder(options, changed):
    weights = randomise(mobilenet_unet.init_weights(seed=0, classes=3, **options))
    before = {name: variable.numpy() for name, variable in weights.items()}
    network = types.SimpleNamespace(forward=mobilenet_unet.forward, loss=losses.categorical_cross_entropy)
    slots = optimizer.init_slots(weights, tf.float32)
    train_step = step.make_train_step(network, weights, slots, {}, tf.float32, step.Recipe(1e-3))
    images = tf.cast(pictures(4, 32, 32, 3), tf.uint8)
    # If the encoder is trained, the step runs eagerly, because tracing the encoder's gradients is slow.
    run = train_step.python_function if options else train_step
    run(images, images[..., 0] % 3, 1.0, tf.constant([0, 0], tf.int64))
    for name, variable in weights.items():
        kept = name.startswith("encoder/") and name.rpartition("/")[2] not in changed
        assert np.array_equal(variable, before[name]) == kept, name


@pytest.mark.parametrize("file", ["new.weights.h5", "model.h5", "published.h5", "topped.weights.h5"])
def test_weights_are_read_from_every_format_of_keras_files(file, keras_files, encoder_weights):
    weights = mobilenet_v2.init_weights(seed=9, trainable=False)
    tf.keras.backend.set_floatx("float16")  # as a user's ~/.keras/keras.json may set it
    tf.keras.backend.set_image_data_format("channels_first")
    pretrained.load(weights, str(keras_files / file))
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, encoder_weights[name], err_msg=name)


def test_an_invalid_weights_file_is_named_with_the_reason(tmp_path, keras_files, monkeypatch):
    built_once = functools.cache(tf.keras.applications.MobileNetV2)
    monkeypatch.setattr(tf.keras.applications, "MobileNetV2", built_once)
    (tmp_path / "text.h5").write_text("not HDF5")
    whole = (keras_files / "published.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    for source, name in (("model.h5", "narrow.h5"), ("new.weights.h5", "narrow.weights.h5")):
        shutil.copy(keras_files / source, tmp_path / name)
        narrow_first_kernel(tmp_path / name)
    small = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)])
    small.save(tmp_path / "small.h5")
    small.save_weights(tmp_path / "small.weights.h5")
    weights = mobilenet_v2.init_weights(seed=0, trainable=False)
    before = weights["Conv1/kernel"].numpy()
    for file, what in {
        "missing.h5": "no such file",
        "text.h5": "signature not found",
        "cut.h5": "truncated file",
        "narrow.h5": "Conv1",
        "narrow.weights.h5": "Conv1",
        "small.h5": "expected 104 layers, found 1",
        "small.weights.h5": "objects could not be loaded",
    }.items():
        with pytest.raises(InputError) as raised:
            pretrained.load(weights, str(tmp_path / file))
        message = str(raised.value)
        assert file in message and what in message and "\n" not in message, message
    np.testing.assert_array_equal(weights["Conv1/kernel"], before)


def narrow_first_kernel(path):
    """Replace the first convolution's kernel in a Keras file by a kernel with 16 instead of 32 outputs."""
    with h5py.File(path, "a") as file:
        names = []
        file.visit(names.append)
        (name,) = (name for name in names if getattr(file[name], "shape", None) == FIRST)
        del file[name]
        file[name] = np.zeros([*FIRST[:3], 16], np.float32)


FIRST = (3, 3, 3, 32)


def test_a_lost_worker_does_not_count_as_a_damaged_file(keras_files, monkeypatch):
    def read(path):
        raise tf.errors.UnavailableError(None, None, "worker 1 ended")

    monkeypatch.setattr(pretrained, "_read", read)
    with pytest.raises(tf.errors.UnavailableError):
        pretrained.load({}, keras_files / "new.weights.h5")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/models"


def test_a_failed_download_of_imagenet_weights_names_the_url(empty_cache, monkeypatch):
    def unreachable(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(InputError, match="Name or service not known") as raised:
        pretrained.download(64)
    assert pretrained.URL.format(224) in str(raised.value)
    assert "--encoder_weights" in str(raised.value)


def test_a_download_of_imagenet_weights_times_out(empty_cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{{}}.h5"
        monkeypatch.setattr(pretrained, "URL", url)
        monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.2)
        with pytest.raises(InputError, match="timed out"):
            pretrained.download(128)
    assert socket.getdefaulttimeout() is None


def test_imagenet_weights_are_downloaded_once(empty_cache, keras_files, monkeypatch):
    published = keras_files / "weights_128.h5"
    published.write_bytes((keras_files / "published.h5").read_bytes())
    monkeypatch.setattr(pretrained, "URL", f"file://{keras_files}/weights_{{}}.h5")
    path = pretrained.download(128)
    published.unlink()
    with monkeypatch.context() as read_only:
        read_only.setattr(files, "lock", None)  # a lock cannot be taken in a read-only folder
        assert pretrained.download(128) == path == empty_cache / "weights_128.h5"
    loaded = []
    monkeypatch.setattr(pretrained, "load", lambda weights, path: loaded.append(path))
    pretrained.initialise({}, "imagenet", 128)
    assert loaded == [path]


def test_a_second_run_waits_for_the_download_of_a_first_run(empty_cache, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(name, url, *, cache_dir, **options):
        with open(cache_dir / name, "wb", buffering=0) as file:
            file.write(b"half")
            begun.set()
            assert go_on.wait(30)
            file.write(b" and half")

    monkeypatch.setattr(tf.keras.utils, "get_file", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(pretrained.download, 128)
        assert begun.wait(30)
        second = pool.submit(lambda: pretrained.download(128).read_bytes())
        monkeypatch.setattr(tf.keras.utils, "get_file", lambda *args, **options: None)  # the file exists
        assert not futures.wait([second], timeout=0.2).done
        go_on.set()
        assert second.result(30) == first.result(30).read_bytes() == b"half and half"


def test_the_experiment_loads_the_weights_named_by_its_flags(keras_files, encoder_weights):
    def conv1(*arguments):
        values = cli.parse(oxford_pets_mobilenet.define_flags, arguments)
        experiment = oxford_pets_mobilenet.experiment(values)
        weights = experiment.init_weights(seed=0)
        started = weights["encoder/Conv1/kernel"].numpy()
        experiment.load_weights(weights)
        return started, weights["encoder/Conv1/kernel"], weights["encoder/bn_Conv1/gamma"]

    started, loaded, _ = conv1("--encoder_weights=none")
    np.testing.assert_array_equal(started, loaded)
    file = f"--encoder_weights={keras_files / 'new.weights.h5'}"
    started, loaded, gamma = conv1(file, "--train_encoder", "--freeze_encoder_norm")
    np.testing.assert_array_equal(loaded, encoder_weights["Conv1/kernel"])
    assert loaded.trainable and not gamma.trainable and not np.array_equal(started, loaded)
