"""This project's five networks in Keras, written as in the articles, and the measurement of their speed.

The function of a network returns a `keras.Model` that maps images [B, H, W, 3] with values 0..255 to logits
[B, H, W, channels]. filters: the number of channels of each level, from the finest to the coarsest; for
mobilenet_unet, of each decoder level. channels: the number of logits per pixel.

The tests check that the networks in `core.models` agree with these models: the outputs and gradients are
equal up to rounding, the numbers of parameters are equal, and the standard deviations of large initial
kernels are equal within 10 %.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from experiments.benchmark import measurement

HE_NORMAL = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}  # of Conv2D layers
STEPS_PER_CALL = 8  # number of steps in one call of `fit` or `predict`
# layers of Keras' MobileNetV2 whose outputs the U-Net uses, from the finest to the coarsest
TAPS = (
    "block_1_expand_relu",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
    "block_16_project",
)


def measure(spec):
    """Measure the steps of `fit` or `predict` on arrays in memory; return the metrics: name -> JSON value.

    spec: settings, see `comparison._settings`. A call of `fit` or `predict` runs STEPS_PER_CALL steps. One
    call, which is not measured, runs before the measured calls. The start-up work of a call delays the call's
    first step. mean_step_seconds is the mean over all steps of the measured calls. step_seconds is the median
    over the same steps without the first step of each call.
    """
    # if TensorFlow's deterministic ops are enabled, random ops raise an error without a seed
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if spec.precision == "bfloat16" else "float32")
    model = NETWORKS[spec.network](spec.filters, spec.channels)
    kind = keras.losses.SparseCategoricalCrossentropy
    loss = keras.losses.BinaryCrossentropy if spec.channels == 1 else kind
    model.compile("adam", loss(from_logits=True), jit_compile=False)
    rng, shape = np.random.default_rng(0), (STEPS_PER_CALL * spec.batch_size, *spec.size)
    images = rng.uniform(0, 255, (*shape, 3)).astype(np.float32)
    masks = rng.integers(0, max(2, spec.channels), (*shape, 1), np.uint8)
    ends = []  # time.time() at the end of each step of all calls

    def end_step(batch, logs):
        ends.append(time.time())

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=end_step, on_predict_batch_end=end_step)
    options = {"batch_size": spec.batch_size, "verbose": 0, "callbacks": [callback]}

    def call():
        if spec.mode == "train":
            model.fit(images, masks, **options)
        else:
            model.predict(images, **options)

    call()
    calls, cores = measurement.time_calls(call, spec.seconds, least=2)
    steps = np.diff(np.reshape(ends, [-1, STEPS_PER_CALL])[1:]).ravel().tolist()
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    return {
        **measurement.metrics(spec.batch_size, steps, cores, ends[0]),
        "mean_step_seconds": statistics.mean(calls) / STEPS_PER_CALL,
        "parameters": [int(trained), model.count_params()],
        "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        "versions": {"keras": keras.__version__},
    }


def road_unet(filters, channels):
    """Return the network of `core.models.road_unet` as a Keras model."""

    def conv(x, width, layer):  # layer: the class layers.Conv2D or layers.Conv2DTranspose
        return layers.LeakyReLU(negative_slope=0.2)(layer(width, 3, padding="same", use_bias=False)(x))

    x = inputs = keras.Input((None, None, 3))
    x, skips = x / 255.0, []
    for width in filters:
        if skips:
            x = layers.MaxPooling2D()(x)
        x = conv(conv(x, width, layers.Conv2D), width, layers.Conv2D)
        skips.append(x)
    for width, skip in zip(filters[-2::-1], skips[-2::-1]):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = conv(conv(x, width, layers.Conv2DTranspose), width, layers.Conv2DTranspose)
    return keras.Model(inputs, layers.Conv2D(channels, 1, use_bias=False)(x))


def pets_unet(filters, channels):
    """Return the network of `core.models.pets_unet` as a Keras model."""

    def pair(x, width):
        for _ in range(2):
            x = layers.Conv2D(width, 3, **HE_NORMAL)(x)
        return x

    x = inputs = keras.Input((None, None, 3))
    x, skips = x / 255.0, []
    for width in filters:
        if skips:
            x = layers.Dropout(0.3)(layers.MaxPooling2D()(x))
        x = pair(x, width)
        skips.append(x)
    for width, skip in zip(filters[-2::-1], skips[-2::-1]):
        x = layers.Conv2DTranspose(width, 3, strides=2, padding="same")(x)
        x = pair(layers.Dropout(0.3)(layers.Concatenate()([x, skip])), width)
    return keras.Model(inputs, layers.Conv2D(channels, 1)(x))


def labels_unet(filters, channels):
    """Return the network of `core.models.labels_unet` as a Keras model."""

    def pair(x, width):
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
            x = layers.BatchNormalization()(x)
        return x

    x = inputs = keras.Input((None, None, 3))
    x, skips = x / 127.5 - 1, []
    for width in filters:
        x = pair(layers.MaxPooling2D()(x) if skips else x, width)
        skips.append(x)
    for width, skip in zip(filters[-2::-1], skips[-2::-1]):
        x = layers.Conv2DTranspose(width, 2, strides=2, padding="same", activation="relu")(x)
        x = pair(layers.Concatenate()([layers.BatchNormalization()(x), skip]), width)
    return keras.Model(inputs, layers.Conv2D(channels, 1)(x))


def dubai_unet(filters, channels):
    """Return the network of `core.models.dubai_unet` as a Keras model."""

    def pair(x, width, rate):  # rate: the dropout rate
        x = layers.Conv2D(width, 3, **HE_NORMAL)(x)
        return layers.Conv2D(width, 3, **HE_NORMAL)(layers.Dropout(rate)(x))

    x = inputs = keras.Input((None, None, 3))
    x, skips = x / 255.0, []
    for width in filters[:-1]:
        skips.append(pair(x, width, 0.1))
        x = layers.MaxPooling2D()(skips[-1])
    x = pair(x, filters[-1], 0.2)
    for width, skip in zip(filters[-2::-1], skips[::-1]):
        x = layers.Conv2DTranspose(width, 2, strides=2, padding="same")(x)
        x = pair(layers.Concatenate()([x, skip]), width, 0.2)
    return keras.Model(inputs, layers.Conv2D(channels, 1)(x))


def mobilenet_unet(filters, channels):
    """Return the network of `core.models.mobilenet_unet` with a frozen encoder as a Keras model."""
    _, down = encoder()
    down.trainable = False
    inputs = keras.Input((None, None, 3))
    *skips, x = down(inputs / 128.0 - 1.0)
    options = {
        "padding": "same",
        "use_bias": False,
        "kernel_initializer": keras.initializers.RandomNormal(0, 0.02),
    }
    for width, skip in zip(filters[::-1], skips[::-1]):
        x = layers.Conv2DTranspose(width, 3, strides=2, **options)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, skip])
    x = layers.Conv2DTranspose(channels, 3, strides=2, padding="same")(x)
    return keras.Model(inputs, x)


def encoder(height=None, width=None):
    """Return two Keras models: MobileNetV2 with random weights, and the part of it that the U-Net uses.

    The outputs of the second model are five feature maps, the outputs of the layers TAPS. The layers and
    variables of the second model are also layers and variables of the first model. height, width: the size of
    the images in pixels; None: any size.
    """
    whole = keras.applications.MobileNetV2(input_shape=(height, width, 3), include_top=False, weights=None)
    return whole, keras.Model(whole.input, [whole.get_layer(name).output for name in TAPS])


UNETS = road_unet, pets_unet, labels_unet, dubai_unet, mobilenet_unet
NETWORKS = {unet.__name__: unet for unet in UNETS}


if __name__ == "__main__":
    measurement.main(measure)
