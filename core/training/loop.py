"""The training loop: one for every experiment, exactly resumable at any step.

All that a step depends on is either in the checkpoint (variables, and the
`State` below) or follows from (seed, epoch, step): the order of the images and
what is random in the network. Files are written so that a process killed at any
moment leaves a run that goes on as if it had never stopped.
"""

import contextlib
import dataclasses
import math
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.data import augment, batches, cache, membership, resident
from core.inference import render
from core.inference.evaluate import make_evaluate, make_predict
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import device, distribution, progress
from core.runtime.errors import InputError
from core.training import averaging, history, signals, tensorboard
from core.training.step import init_slots, make_train_step, recipe_from_flags
from core.weights import count

LOSS_SYNC_SECONDS = 0.5  # seconds between looks at the losses, which till then stay on the device
EXPLODED = 100.0  # a loss above this, in nats a pixel, ends the run: chance level is 3.5 for 34 classes
PICTURES = 6  # validation images in the picture of each epoch


@dataclasses.dataclass
class State:
    """Where a training stands, but for the values of its variables."""

    epoch: int = 0  # whole epochs, validation included
    step: int = 0  # steps made in the epoch after those
    loss_sum: float = 0.0  # over the images of these steps
    step_seconds: float = 0.0  # that these steps took
    seconds: float = 0.0  # since the start of the run, pauses between processes left out
    data: list = dataclasses.field(default_factory=list)  # the checksums of its images
    history: list = dataclasses.field(default_factory=list)  # a dict for each epoch


def run(experiment, define_flags, flags):
    """Train an experiment in its run folder, from the start or from where it stands.

    Returns the process' exit code: 0, or 130 and 143 where SIGINT or SIGTERM
    ended it with its state saved. Raises InputError for what the user can cure.
    """
    folder = Path(flags.run_dir)
    device_name = device.set_up(flags)
    with distribution.strategy(flags.strategy).scope(), distribution.lost_workers_named():
        if distribution.workers() > 1:
            device_name = f"{distribution.workers()} workers with {device_name}"
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if flags.batch_size % replicas:
            raise InputError(
                f"--batch_size={flags.batch_size}: must be a multiple of the {replicas} replicas."
            )
        claim = run_folder.claim(folder, experiment.name, define_flags, flags)
        with claim if distribution.is_chief() else contextlib.nullcontext():
            result_flags = repr(run_folder.result_flags(define_flags, flags))
            distribution.check_alike([zlib.crc32(result_flags.encode())])
            return _run(experiment, flags, folder, device_name)


def _run(experiment, flags, folder, device_name):
    dtype = tf.dtypes.as_dtype(flags.precision)
    chief = distribution.is_chief()

    # --- variables: from the last checkpoint, else published values over the seed's
    weights = experiment.init_weights(seed=flags.seed)
    state, saved = State(), checkpoint.load_latest(folder / "checkpoints", mend=chief)
    if not saved:
        experiment.load_weights(weights)
    slots = init_slots(weights, dtype)
    averages = averaging.init_averages(weights) if flags.ema_decay else {}
    variables = weights | slots | averages
    if saved:
        checkpoint.restore(variables, saved[0], folder)
        state = _state(saved[1], folder)
    print(f"{experiment.name}: {count(weights):,} parameters, {flags.precision} on {device_name}")

    def report():
        if chief:
            facts = {"seconds": state.seconds, "parameters": count(weights), "device": device_name}
            history.report(state.history, folder, experiment, **facts)
        return 0

    def keep_best():
        fresh = chief and state.history and state.step == 0
        if fresh and history.best(state.history, experiment.best) is state.history[-1]:
            checkpoint.keep(folder / "checkpoints", "best")

    keep_best()  # the process may have died between a save and this

    # --- data
    train, val = (cache.load_split(experiment.dataset, flags, split) for split in ("train", "val"))
    checksums = [train.checksum, val.checksum]
    distribution.check_alike([state.epoch, state.step, *checksums])
    if state.data not in ([], checksums):
        raise InputError(
            f"{train.data_dir}: files, or the code that reads them, changed since {folder} was begun;"
            " begin a new --run_dir."
        )
    state.data = checksums
    if chief:
        membership.write(folder, train, val)

    def finished():
        return state.epoch == flags.epochs or history.stalled(state.history, flags.early_stopping_patience)

    if finished():
        print("this run is finished; another --run_dir begins a new one")
        return report()

    for examples in (train, val):
        beyond = np.flatnonzero(examples.class_pixels[len(experiment.classes) :]) + len(experiment.classes)
        if len(beyond):
            raise InputError(
                f"{examples.data_dir}: the reader made class ids {beyond.tolist()} of masks, where"
                f" {experiment.name} has classes 0 to {len(experiment.classes) - 1}."
            )
    experiment.dataset.check(train.class_pixels, train.files)
    print(f"{len(train)} training and {len(val)} validation images from {train.data_dir}")

    # --- loop
    writer = tensorboard.writer(folder) if flags.tensorboard and chief else None
    steps = math.ceil(len(train) / flags.batch_size)  # of an epoch
    train_step = make_train_step(
        experiment, weights, slots, averages, dtype, recipe_from_flags(flags, flags.epochs * steps)
    )
    changes = [*experiment.augment, *(augment.BY_NAME[name] for name in flags.augment)]
    evaluate = make_evaluate(experiment, averaging.evaluated(variables), dtype)
    predict = make_predict(experiment, averaging.evaluated(variables), dtype)
    shown = val.rows[np.unique(np.linspace(0, len(val) - 1, PICTURES).astype(int))]
    started = time.monotonic() - state.seconds
    pending = []  # (images, loss) of the steps not yet in state.loss_sum

    def distributed(make_batches, examples, **options):
        """The batches of a function of `core.data.batches`, in parts for the replicas."""
        return tf.distribute.get_strategy().distribute_datasets_from_function(
            lambda context: make_batches(examples, flags.batch_size, context=context, **options)
        )

    if flags.data_on_device:
        training = resident.make_training(train, flags.batch_size, seed=flags.seed, changes=changes)
    else:

        def training(epoch, first_step):
            options = {"seed": flags.seed, "epoch": epoch, "first_step": first_step, "changes": changes}
            return distributed(batches.training, train, **options)

    def asked_to_stop():
        return distribution.gathered([len(received)]).any()  # any worker: they stop at the same step

    def save():
        _settle(pending, state)
        arrays = {name: variable.numpy() for name, variable in variables.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise _diverged(state, "a weight")
        state.seconds = time.monotonic() - started
        if chief:
            checkpoint.save(folder / "checkpoints", arrays, dataclasses.asdict(state))

    def train_epoch():
        bar = progress.Progress(steps, "step", done=state.step)
        saved = looked = time.monotonic()
        for batch in signals.stop_when(asked_to_stop, training(state.epoch, state.step)):
            seed = tf.constant([flags.seed, state.epoch * steps + state.step], tf.int64)
            examples = min(flags.batch_size, len(train) - state.step * flags.batch_size)
            pending.append((examples, train_step(*batch, seed)))
            state.step += 1
            if time.monotonic() - looked > LOSS_SYNC_SECONDS or state.step == steps:
                _settle(pending, state)
                state.step_seconds += time.monotonic() - looked
                seen = min(state.step * flags.batch_size, len(train))
                bar.update(
                    state.step,
                    [("loss", state.loss_sum / seen), ("images/s", seen / state.step_seconds)],
                )
                if time.monotonic() - saved > 60 * flags.checkpoint_every:
                    save()
                    saved = time.monotonic()
                looked = time.monotonic()

    def finish_epoch():
        val_batches = distributed(batches.evaluation, val)
        means, confusion = evaluate(signals.stop_when(asked_to_stop, val_batches))
        figures = {**means, **experiment.metrics(confusion)}
        row = {
            "epoch": state.epoch + 1,
            "step": (state.epoch + 1) * steps,
            "train_loss": state.loss_sum / len(train),
            **{f"val_{name}": float(value) for name, value in figures.items()},
            "images_per_second": len(train) / state.step_seconds,
            "seconds": time.monotonic() - started,
        }
        if chief:
            panel = render.examples_panel(val, shown, predict, experiment.palette)
            run_folder.write_picture(folder / "predictions" / f"epoch_{row['epoch']:03}.png", panel)
            if writer:
                tensorboard.write(writer, row, panel)
        state.history.append(row)
        state.epoch, state.step, state.loss_sum, state.step_seconds = row["epoch"], 0, 0.0, 0.0
        save()
        keep_best()
        if chief:
            run_folder.write_metrics(folder, state.history)
        print(f"epoch {row['epoch']}/{flags.epochs}: {history.line(row)}", flush=True)

    if state.history or state.step:
        print(f"continuing after {state.epoch} epochs and {state.step} steps")
    code_digest.record(folder, experiment.name, epoch=state.epoch, step=state.step, write=chief)
    with signals.catch_signals() as received:  # not before: a preparation can be killed and goes on too
        try:
            while not finished():
                train_epoch()
                finish_epoch()
        except signals.Stopped:
            save()
            print(f"stopped and saved; the same command continues {folder}")
            return 128 + (received or [signal.SIGTERM])[0]  # none where another worker got it
    return report()


def _state(saved, folder):
    """`State` from a checkpoint's JSON values. Raises InputError where they are something else."""
    kinds = {field.name: field.type for field in dataclasses.fields(State)}
    fits = kinds.keys() == saved.keys() and all(isinstance(saved[name], kinds[name]) for name in kinds)
    if not (fits and saved["step"] >= 0 and saved["epoch"] == len(saved["history"])):
        raise InputError(
            f"{folder / 'checkpoints'}: not from a training of this version; restore a copy or begin"
            " a new --run_dir."
        )
    return State(**saved)


def _settle(pending, state):
    """Wait for the losses of the last steps and add them up; raise if one is absurd."""
    for examples, loss in pending:
        value = float(loss)
        if not value < EXPLODED:  # NaN is not below anything either
            raise _diverged(state, f"the loss ({value:.3g})")
        state.loss_sum += value * examples
    pending.clear()


def _diverged(state, what):
    return InputError(
        f"{what} is not finite or absurdly large at or before step {state.step} of epoch"
        f" {state.epoch + 1}: the training diverged. Checkpoints are from before; begin a new"
        " --run_dir with a smaller --learning_rate, or with --clip_norm=1."
    )
