"""Preparation of a training: choose the precision, create or restore variables, load images."""

import os
import zlib
from pathlib import Path

import tensorflow as tf

from core.data import cache, remarks
from core.runs import checkpoint, run_folder
from core.runtime import distribution, precision
from core.runtime.errors import InputError
from core.training import checks, optimizer, warm_start
from core.training.state import State, state_from_json


def choose_precision(folder):
    """Return the name of the dtype that replaces --precision=auto.

    folder: the run folder. A continued run keeps the precision in flags.cfg in this folder. For a new run,
    a test step in float32 and in bfloat16 is measured, see `core.runtime.precision`, and the faster dtype is
    used. If there are several workers, all workers use the choice of the first worker. Raises InputError if
    the workers find different values in flags.cfg.
    """
    recorded = run_folder.recorded_flag(folder, "precision")
    # Every worker must take part in each exchange. If only some workers found a run, they would return below,
    # and their next exchange would be paired with the exchange of `fastest` by the others. `check_alike`
    # prevents this: it raises InputError if the recorded values differ.
    distribution.check_alike([zlib.crc32((recorded or "").encode())])
    if recorded:
        print(f"--precision=auto: {recorded}, with which this run began")
        return recorded
    seconds = precision.step_seconds()
    fastest = precision.CANDIDATES.index(min(seconds, key=seconds.get))
    chosen = precision.CANDIDATES[distribution.gathered([fastest])[0, 0]]
    steps = ", ".join(f"{1000 * each:.1f} ms in {name}" for name, each in seconds.items())
    print(f"--precision=auto: {chosen}; a test step took {steps}")
    return chosen


def make_variables(experiment, flags, folder):
    """Return (weights, slots, averages, state) of a run, restored from the last checkpoint if there is one.

    weights, slots and averages are dicts of name -> `tf.Variable`, see `core.training.optimizer`. averages is
    empty without --ema_decay. state is a `State`. flags: the parsed flags. folder: the run folder.

    The weights of a new run come from the run that --init_from names. Without this flag, the weights have
    initial values, and `Experiment.load_weights` may replace some of them.

    Raises InputError if `checks.check_experiment`, `checks.check_history`, `checkpoint.load_latest` or
    `warm_start.load` does, if the folder has only the checkpoint `best.npz`, if the variables or the state in
    the checkpoint do not fit this run, if the run has already begun more epochs than --epochs, or if the
    workers have different initial weights.
    """
    weights = experiment.init_weights(seed=flags.seed)
    logits = checks.check_experiment(experiment, weights)
    saved = checkpoint.load_latest(folder / "checkpoints", mend=distribution.is_chief())
    if not saved and run_folder.is_begun(folder):
        raise InputError(
            f"{folder / 'checkpoints'}: last.npz and previous.npz are missing, so the run cannot continue;"
            f" restore one of them from a copy, or begin a new --run_dir with --init_from={folder}."
        )
    # With several workers, creating a variable waits until all workers create it. `load_weights` may create
    # variables, and only workers without a checkpoint call it. So all workers must agree on `saved`.
    distribution.check_alike([bool(saved)])
    state = State()
    if not saved and flags.init_from:
        state.initial = warm_start.load(weights, flags.init_from, flags.init_checkpoint, logits=logits)
    elif not saved:
        experiment.load_weights(weights)
    if distribution.workers() > 1:  # each worker may have read its own file of weights or its own checkpoint
        distribution.check_alike([zlib.crc32(weight.numpy()) for weight in weights.values()])
    slots = optimizer.init_slots(weights, tf.dtypes.as_dtype(flags.precision))
    averages = optimizer.init_averages(weights) if flags.ema_decay else {}
    if saved:
        checkpoint.restore(weights | slots | averages, saved[0], folder)
        state = state_from_json(saved[1], folder)
        checks.check_history(experiment, state.history, folder)
    begun_epochs = state.epoch + (state.step > 0)
    if flags.epochs < begun_epochs:
        raise InputError(
            f"--epochs={flags.epochs}: {folder} has already begun epoch {begun_epochs}; give at least"
            f" --epochs={begun_epochs}, or begin a new --run_dir."
        )
    return weights, slots, averages, state


def load_images(dataset, flags, folder, state):
    """Return (train, val): the `core.data.cache.Examples` of the training split and of the validation split.

    Records in `state` the folder of the images and, for each split, the number of photos, a checksum of the
    file names, and a checksum of the decoded photos and masks.

    Raises InputError if the run was trained on other images, if the workers have different images or
    checkpoints, or if images cannot be read. File names are compared before any image is decoded, so that a
    wrong folder is noticed early. flags: the parsed flags. folder: the run folder. state: the `State` of the
    run.
    """
    files = image_files(dataset, flags)
    if state.image_files not in ([], files):
        place = flags.data_dir or "the generated data set"
        raise _other_images(folder, state, f"{place} has other files or paths ({_numbers(files)})")
    train = cache.load_split(dataset, flags, "train")
    val = cache.load_split(dataset, flags, "val", said=train.warnings)
    checksums = [train.checksum, val.checksum]
    distribution.check_alike([state.epoch, state.step, *checksums])
    if state.data not in ([], checksums):
        found = f"the images in {train.data_dir}, or the code that reads them, differ"
        raise _other_images(folder, state, found)
    state.image_files, state.data, state.data_dir = files, checksums, os.path.abspath(train.data_dir)
    return train, val


def image_files(dataset, flags):
    """Return the number of photos of each split, and a checksum of the names of their files.

    The result is [[number, checksum], [number, checksum]]: first training, then validation. If the split is
    random, both pairs describe all photos. With --limit, only the first photos count. A checksum is the
    CRC-32 of the paths of photos and masks, relative to the data set's folder. The function calls
    `dataset.find` and decodes no file.

    dataset: the experiment's `Dataset`. flags: the parsed flags.
    """
    data_dir = Path(flags.data_dir or cache.generated(dataset.name, dataset.generate, Path(flags.cache_dir)))
    splits = []
    for split in ("train", "val"):
        with remarks.collect():  # discards remarks about the files, because `cache.load_split` prints them
            files = list(dataset.find(data_dir, split))[: flags.limit or None]
        names = [os.path.relpath(path, data_dir) for paths in files for path in paths]
        splits.append([len(files), zlib.crc32("\n".join(names).encode("utf-8", "surrogateescape"))])
    return splits


def _other_images(folder, state, found):
    """Return the InputError for a run that was trained on other images.

    folder: the run folder. state: the `State` of the run. found: a clause of the message that says what
    differs now, such as "DIR has other files".
    """
    counts = _numbers(state.image_files) if state.image_files else "other images"
    place = f" in {state.data_dir}" if state.data_dir else ""
    return InputError(
        f"{folder} was trained on {counts}{place}, but {found}; continue with the same images, or begin a"
        " new --run_dir."
    )


def _numbers(image_files):
    """Return the numbers of files as text. image_files: the result of `image_files`."""
    train, val = image_files
    if train == val:  # all files, which are split at random later
        return f"{train[0]} files"
    return f"{train[0]} training and {val[0]} validation files"
