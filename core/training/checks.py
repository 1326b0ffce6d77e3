"""Checks before training that classes, palette, logits, metrics, masks and images fit together.

Each check raises InputError with one sentence. Without the checks, a mismatch would train to the
end and report wrong numbers.
"""

import os
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.data import cache, remarks
from core.experiment import IGNORE
from core.runtime.errors import InputError

SIDES = (32, 64, 128, 256, 512)  # image sides with which the network is tried


def check_experiment(experiment, weights):
    """Raise InputError unless classes, palette, logits and metrics fit; return the number of logits."""
    name, classes = experiment.name, len(experiment.classes)
    if not 2 <= classes <= IGNORE:
        raise InputError(f"{name}: has {classes} classes; 2 to {IGNORE} are possible.")
    if len(set(experiment.classes)) < classes:
        raise InputError(f"{name}: two classes have the same name; give each class its own name.")
    if len(experiment.palette) != classes:
        raise InputError(
            f"{name}: has {classes} classes and {len(experiment.palette)} colours in its palette; give each"
            " class one colour."
        )
    logits = _logits(experiment, weights)
    if logits != classes and (logits, classes) != (1, 2):
        raise InputError(
            f"{name}: has {classes} classes, but its network's logits have {logits} channels; give"
            " the network one channel for each class (or one channel for two classes)."
        )
    measured = {"loss", *experiment.measures, *experiment.metrics(np.zeros([classes, classes], np.int64))}
    if experiment.best not in measured:
        raise InputError(
            f"{name}: best={experiment.best!r} is not one of its metrics; use one of"
            f" {', '.join(sorted(measured))}."
        )
    return logits


def _logits(experiment, weights):
    """Return the number of logits per pixel, from the smallest image that the network accepts."""
    for side in SIDES:
        try:
            return experiment.forward(weights, tf.zeros([1, side, side, 3])).shape[-1]
        except (ValueError, tf.errors.InvalidArgumentError):  # the network does not accept this side
            if side == SIDES[-1]:
                raise


def check_masks(experiment, train, val):
    """Raise InputError if masks hold unknown class ids; print the classes without any pixel.

    train, val: `core.data.cache.Examples`.
    """
    classes = len(experiment.classes)
    for examples in (train, val):
        beyond = [index for index in np.flatnonzero(examples.class_pixels).tolist() if index >= classes]
        if beyond and not (experiment.ignore and beyond == [IGNORE]):
            raise InputError(
                f"{examples.data_dir}: the masks hold class ids {beyond}, but the classes of"
                f" {experiment.name} are 0 to {classes - 1}; correct the reader, or the list of classes."
            )
    experiment.dataset.check(train.class_pixels, train.files)
    for split, examples in (("training", train), ("validation", val)):
        pixels = class_pixels(examples)[:classes]
        absent = [name for name, count in zip(experiment.classes, pixels) if not count]
        if absent:
            print(f"warning: classes without a pixel in the {split} masks: {', '.join(absent)}.")


def warn_of_shared_photos(train, val):
    """Print how many validation photos are identical to a training photo and so bias the metrics."""
    shared = np.isin(val.checksums, train.checksums).sum()
    if shared:
        print(
            f"warning: {shared} of the {len(val)} validation images are training images too, pixel by pixel:"
            " the validation metrics are better than on new images."
        )


def class_pixels(examples):
    """Return the pixels of each class id in the masks of a split, int64 [256]."""
    if len(examples) == len(examples.masks):
        return examples.class_pixels
    counts = (np.bincount(examples.masks[row].ravel(), minlength=256) for row in examples.rows)
    return np.sum(list(counts), axis=0)


def best_metric(experiment, val):
    """Return the name of the metric that chooses the best epoch.

    This is `experiment.best`, or "loss" if that metric is undefined because a class has no pixel in the
    validation masks: it could be NaN in some epochs and a number in others.
    """
    classes = len(experiment.classes)
    all_correct = np.diag(class_pixels(val)[:classes])
    if np.isfinite(experiment.metrics(all_correct).get(experiment.best, 0)):
        return experiment.best
    print(
        f"warning: {experiment.best} is undefined for these validation masks; the smallest validation loss"
        " chooses the best epoch."
    )
    return "loss"


def image_files(dataset, flags):
    """Return [number, CRC-32 of the relative paths] of the files of both splits, without decoding them."""
    data_dir = Path(flags.data_dir) if flags.data_dir else cache.generated(dataset, Path(flags.cache_dir))
    splits = []
    for split in ("train", "val"):
        with remarks.collect():  # remarks are printed when the files are decoded
            files = list(dataset.find(data_dir, split))[: flags.limit or None]
        names = [os.path.relpath(path, data_dir) for paths in files for path in paths]
        splits.append([len(files), zlib.crc32("\n".join(names).encode())])
    return splits
