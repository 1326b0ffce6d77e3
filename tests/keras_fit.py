"""Train an experiment with Keras' `fit`, as a reference for this project's training.

    python tests/keras_fit.py oxford_pets --seed=0 --data_dir=DIR --epochs=16 ...

The flags are the experiment's, but --schedule, --ema_decay and some other flags are not supported. The
network has the same architecture and the same distributions of the initial weights. Keras supplies the
layers, the random numbers, dropout, the loss and Adam. A MobileNetV2 encoder has the weights of
--encoder_weights. Images, their order, augmentation and the validation metrics come from this project. This
script is not part of the test suite.
"""

import dataclasses
import inspect
import sys

import keras

from core.data import augment, batches, cache
from core.inference.evaluate import make_evaluate
from core.models import mobilenet_unet
from core.runtime import cli, device
from core.training import checks
from experiments import article
from experiments.benchmark import keras_baselines


def main(name, *arguments):
    script = article(name)
    flags = cli.parse(script.define_flags, arguments)
    unsupported = "schedule warmup_steps ema_decay dice weight_decay strategy data_on_device init_from"
    unsupported += " early_stopping_patience class_weights ignore"
    given = [
        f"--{flag}"
        for flag in unsupported.split()
        if flag in flags and flags[flag].value != flags[flag].default
    ]
    if flags.precision not in ("float32", "bfloat16"):
        given.append(f"--precision={flags.precision}")
    if given:
        raise SystemExit(f"{', '.join(given)}: not supported by tests/keras_fit.py; use the default.")
    experiment = script.experiment(flags)
    device.set_up(flags)
    keras.utils.set_random_seed(flags.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if flags.precision == "bfloat16" else "float32")
    logits = checks.check_experiment(experiment, experiment.init_weights(seed=0))
    model = keras_model(experiment, flags, logits)
    sparse = keras.losses.SparseCategoricalCrossentropy
    loss = keras.losses.BinaryCrossentropy if logits == 1 else sparse
    model.compile(
        keras.optimizers.Adam(flags.learning_rate, global_clipnorm=flags.clip_norm or None),
        loss(from_logits=True),
    )
    train, val = (cache.load_split(experiment.dataset, flags, split) for split in ("train", "val"))

    def forward(weights, images, *, training=False, seed=None):
        return model(images, training=training)

    evaluate = make_evaluate(dataclasses.replace(experiment, forward=forward), {}, model.compute_dtype)
    for epoch in range(flags.epochs):
        changes = [*experiment.augment, *(augment.BY_NAME[each] for each in flags.augment)]
        data = batches.training(train, flags.batch_size, seed=flags.seed, epoch=epoch, changes=changes)
        data = data.map(lambda images, masks, share: (images, masks[..., None]))
        fitted = model.fit(data, shuffle=False, verbose=0)  # the data set is already shuffled
        means, confusion, _ = evaluate(batches.evaluation(val, flags.batch_size))
        metrics = {**means, **experiment.metrics(confusion)}
        line = ", ".join(f"val_{name} {value:.4f}" for name, value in metrics.items() if "/" not in name)
        train_loss = fitted.history["loss"][0]
        print(f"epoch {epoch + 1}/{flags.epochs}: train_loss {train_loss:.4f}, {line}", flush=True)


def keras_model(experiment, flags, logits):
    """Return the Keras model of an experiment's network.

    logits: the number of logits per pixel. flags: the experiment's flags. For mobilenet_unet,
    --encoder_weights gives the initial weights of the encoder, and --train_encoder and --freeze_encoder_norm
    determine which of its layers are trainable.
    """
    network = inspect.getmodule(experiment.forward)
    make = keras_baselines.NETWORKS[network.__name__.rpartition(".")[2]]
    model = make(getattr(network, "FILTERS", None), logits)
    encoder = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    if encoder is None:
        return model
    if flags.encoder_weights != "none":
        variables = experiment.init_weights(seed=0)
        experiment.load_weights(variables)
        weights = mobilenet_unet.encoder(variables)
        for variable in encoder.variables:
            variable.assign(weights[variable.path.replace("moving_", "")])
    encoder.trainable = flags.train_encoder
    for layer in encoder.layers if flags.freeze_encoder_norm else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
