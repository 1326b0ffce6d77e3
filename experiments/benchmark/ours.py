"""This code's turn: an experiment's network, fed as training and evaluation feed it."""

import dataclasses
import importlib
import itertools

import numpy as np
import tensorflow as tf

from core import weights
from core.data import batches, cache
from core.inference.evaluate import make_predict
from core.runtime import cli, device
from core.training.step import init_slots, make_train_step, recipe_from_flags
from experiments.benchmark import flops, measurement

EPOCH = 64
MODES = ("train", "infer", "input")


def measure(spec):
    """Figures of a step: of training, of prediction, or of the input of training alone.

    spec.module: an experiment's; spec.flags: its arguments; spec.mode: one of MODES.
    Beside what every contestant says: the arithmetic, the numbers in the network
    (trained, all), the device and the versions in words.
    """
    module = importlib.import_module(spec.module)
    flags = cli.parse(module.define_flags, spec.flags)
    experiment = module.experiment(flags)
    device_name = device.set_up(flags)
    made = experiment.init_weights(seed=flags.seed)
    examples = feed(experiment, flags, spec.mode)
    batch = [tf.TensorSpec(each.shape, each.dtype) for each in next(examples)]
    step, gflop = _step(spec.mode, experiment, made, flags, examples)
    trained = {name: variable for name, variable in made.items() if variable.trainable}
    return {
        **measurement.steps(step, flags.batch_size, spec.seconds),
        "gflop_per_image": gflop(*batch) / flags.batch_size,
        "parameters": [weights.count(trained), weights.count(made)],
        "device": device_name,
        "versions": device.versions(),
    }


def _step(mode, experiment, made, flags, examples):
    """Two functions: one makes a step and waits for it, one counts its arithmetic."""
    if mode == "input":
        return lambda: next(examples), lambda *batch: 0.0
    dtype = tf.dtypes.as_dtype(flags.precision)
    if mode == "infer":
        predict = make_predict(experiment, made, dtype)
        return (
            lambda: predict(next(examples)[0]).numpy(),
            lambda images, masks, share: flops.gflop(predict, images),
        )
    slots = init_slots(made, dtype)
    train_step = make_train_step(
        experiment, made, slots, {}, dtype, recipe_from_flags(flags, flags.epochs * EPOCH)
    )
    number, seed = itertools.count(), tf.TensorSpec([2], tf.int64)
    return (
        lambda: float(train_step(*next(examples), [flags.seed, next(number)])),
        lambda *batch: flops.gflop(train_step, *batch, seed),
    )


def feed(experiment, flags, mode):
    """Batches without end, in epochs of `EPOCH` batches or more, all of them full.

    Generated sets are smaller than real ones, so that their images come several times.
    """
    split = "val" if mode == "infer" else "train"
    examples = cache.load_split(experiment.dataset, flags, split)
    whole = max(EPOCH, -(-len(examples) // flags.batch_size)) * flags.batch_size
    examples = dataclasses.replace(examples, rows=np.resize(examples.rows, whole))
    for epoch in itertools.count():
        if mode == "infer":
            yield from batches.evaluation(examples, flags.batch_size)
        else:
            order = {"seed": flags.seed, "epoch": epoch}
            yield from batches.training(examples, flags.batch_size, **order, changes=experiment.augment)


if __name__ == "__main__":
    measurement.take(measure)
