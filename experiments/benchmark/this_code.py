"""Measure the speed of this project's code: an experiment's network, fed by the input pipeline."""

import dataclasses
import importlib
import itertools

import numpy as np
import tensorflow as tf

from core import lowering
from core.data import batches, cache
from core.inference.evaluate import make_predict
from core.runtime import cli, device
from core.training.optimizer import init_slots
from core.training.step import make_train_step, recipe_from_flags
from core.weights import count, fixed
from experiments.benchmark import flops, measurement

EPOCH = 64  # an epoch of the measurement has at least this number of batches
MODES = ("train", "infer", "input")


def measure(spec):
    """Measure steps of training, of prediction, or of the input pipeline of training; return the metrics.

    spec: settings, see `comparison._settings`. spec.module: name of the experiment's module. spec.flags:
    command-line arguments for this module. spec.mode: one of MODES.

    The returned dict has the metrics of `measurement.metrics` and these items:
    rules: name of a rule of `core.lowering` -> how often the rule was applied. gflop_per_image: GFLOP of a
    step divided by the batch size. parameters: [number of trained parameters, number of all parameters].
    device: name of the device. kind: "CPU" or "GPU". versions: package -> version.
    """
    module = importlib.import_module(spec.module)
    flags = cli.parse(module.define_flags, spec.flags)
    experiment = module.experiment(flags)
    device_name = device.set_up(flags)
    lowering.configure(flags.lowering)
    weights = experiment.init_weights(seed=flags.seed)
    examples = feed(experiment, flags, spec.mode)
    batch = [tf.TensorSpec(each.shape, each.dtype) for each in next(examples)]
    step, gflop = _step(spec.mode, experiment, weights, flags, examples)
    trained = {name: variable for name, variable in weights.items() if variable.trainable}
    before = lowering.applied()
    metrics = measurement.measure_steps(step, flags.batch_size, spec.seconds)
    rules = dict(lowering.applied() - before)
    return {
        **metrics,
        "rules": rules,
        "gflop_per_image": gflop(*batch) / flags.batch_size,
        "parameters": [count(trained), count(weights)],
        "device": device_name,
        "kind": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        "versions": device.versions(),
    }


def _step(mode, experiment, weights, flags, examples):
    """Return two functions, run_step and count_gflop.

    run_step: a function () -> result that runs one step and waits for its result. count_gflop: a function
    (images, masks, share) -> GFLOP of one step. Its arguments are the `tf.TensorSpec`s of a batch.
    mode: one of MODES. examples: an iterator over batches, as returned by `feed`.
    """
    if mode == "input":
        return lambda: next(examples), lambda *batch: 0.0
    dtype = tf.dtypes.as_dtype(flags.precision)
    if mode == "infer":
        with_constants = dataclasses.replace(experiment, forward=fixed(experiment.forward))
        predict = make_predict(with_constants, weights, dtype)
        return (
            lambda: predict(next(examples)[0]).numpy(),
            lambda images, masks, share: flops.gflop(predict, images),
        )
    slots = init_slots(weights, dtype)
    recipe = recipe_from_flags(flags, flags.epochs * EPOCH)
    images, *_ = next(examples)
    train_step = make_train_step(experiment, weights, slots, {}, dtype, recipe, images.shape[1:3])
    number, seed = itertools.count(), tf.TensorSpec([2], tf.int64)
    return (
        lambda: float(train_step(*next(examples), [flags.seed, next(number)])),
        lambda *batch: flops.gflop(train_step, *batch, seed),
    )


def feed(experiment, flags, mode):
    """Yield full batches without end: tuples (images, masks, share), as described in `core.data.batches`.

    If the mode is "infer", the batches hold validation images, otherwise training images. An epoch has at
    least `EPOCH` batches. If the data set has too few images, its images are repeated within an epoch.
    """
    split = "val" if mode == "infer" else "train"
    examples = cache.load_split(experiment.dataset, flags, split)
    rows = max(EPOCH, -(-len(examples) // flags.batch_size)) * flags.batch_size
    examples = dataclasses.replace(examples, rows=np.resize(examples.rows, rows))
    for epoch in itertools.count():
        if mode == "infer":
            yield from batches.evaluation(examples, flags.batch_size)
        else:
            order = {"seed": flags.seed, "epoch": epoch}
            yield from batches.training(examples, flags.batch_size, **order, changes=experiment.augment)


if __name__ == "__main__":
    measurement.main(measure)
