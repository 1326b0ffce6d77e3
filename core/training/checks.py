"""Checks of the experiment, the network, the masks and the images before a training.

A check raises InputError or prints a warning. Without these checks, a mistake would be noticed after the
training, because of wrong metrics, or not at all.
"""

import os
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.data import cache, remarks
from core.experiment import IGNORE
from core.runtime.errors import InputError

SIDES = (32, 64, 128, 256, 512)  # sides of the images, in pixels, that `_logits` tries in this order


def check_experiment(experiment, weights):
    """Check an experiment, and return the number of logits per pixel of its network.

    weights: name -> `tf.Variable`. Raises InputError in these cases:

    - there are fewer than 2 or more than 255 classes, or two classes have the same name
    - the palette does not have one colour for each class
    - the network has neither one logit per class nor, with two classes, a single logit
    - the loss or a measure does not return one value per example
    - two metrics have the same name, or a metric is called "loss"
    - `experiment.best` is neither "loss" nor the name of a metric
    """
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
    channels = logits.shape[-1]
    if channels != classes and (channels, classes) != (1, 2):
        raise InputError(
            f"{name}: has {classes} classes, but its network's logits have {channels} channels; give"
            " the network one channel for each class (or one channel for two classes)."
        )
    both = tf.cast(tf.concat([logits, logits], axis=0), tf.float32)
    for label, function in [("the loss", experiment.loss), *experiment.measures.items()]:
        shape = function(both, tf.zeros(both.shape[:3], tf.uint8)).shape
        if shape != [2]:
            raise InputError(
                f"{name}: {label} has the shape {shape} for two examples; return one value per example, [B]."
            )
    measured = _measured(experiment)
    repeated = sorted(each for each in set(measured) if measured.count(each) > 1)
    if repeated:
        raise InputError(f"{name}: two metrics are called {repeated[0]!r}; rename one of them.")
    if experiment.best not in measured:
        raise InputError(
            f"{name}: best={experiment.best!r} is not one of its metrics; use one of"
            f" {', '.join(sorted(measured))}."
        )
    return channels


def check_history(experiment, history, folder):
    """Raise InputError if a run was begun with other validation metrics than the experiment has now.

    history: the rows of the run's finished epochs. folder: the run folder.
    """
    names = {f"val_{name}" for name in _measured(experiment)}
    for row in history[:1]:
        differing = names ^ {name for name in row if name.startswith("val_")}
        if differing:
            raise InputError(
                f"{folder} was begun with other metrics ({', '.join(sorted(differing))} differ); restore the"
                " experiment's metrics, or begin a new --run_dir."
            )


def _measured(experiment):
    """Return a list of the names of the experiment's validation metrics, including "loss"."""
    classes = len(experiment.classes)
    return ["loss", *experiment.measures, *experiment.metrics(np.zeros([classes, classes], np.int64))]


def _logits(experiment, weights):
    """Return the logits of an experiment's network for a square image of zeros, [1, side, side, channels].

    The sides in SIDES are tried until the network accepts a side. If the network accepts none of these sides,
    its exception for the last side is raised.
    """
    for side in SIDES:
        try:
            return experiment.forward(weights, tf.zeros([1, side, side, 3]))
        except (ValueError, tf.errors.InvalidArgumentError):  # the network does not accept this side
            if side == SIDES[-1]:
                raise


def check_masks(experiment, train, val):
    """Check the class ids in the masks of both splits; print a warning about classes without a pixel.

    train, val: the `core.data.cache.Examples` of the splits. Raises InputError if the masks hold ids that are
    not classes. The id IGNORE is allowed if `experiment.ignore` is true. The function also calls
    `experiment.dataset.check` with the data of the training split. This call may raise InputError too.
    """
    classes = len(experiment.classes)
    for examples in (train, val):
        beyond = [index for index in np.flatnonzero(examples.class_pixels).tolist() if index >= classes]
        if beyond and not (experiment.ignore and beyond == [IGNORE]):
            raise InputError(
                f"{examples.data_dir}: the masks hold class ids {beyond}, but the classes of"
                f" {experiment.name} are 0 to {classes - 1}; correct the function that reads"
                " the masks, or the experiment's list of classes."
            )
    experiment.dataset.check(train.class_pixels, train.files)
    for split, examples in (("training", train), ("validation", val)):
        pixels = class_pixels(examples)[:classes]
        absent = [name for name, count in zip(experiment.classes, pixels) if not count]
        if absent:
            print(f"warning: classes without a pixel in the {split} masks: {', '.join(absent)}.")


def warn_of_shared_photos(train, val):
    """Print a warning if validation photos are identical to training photos, pixel by pixel."""
    shared = np.isin(val.checksums, train.checksums).sum()
    if shared:
        print(
            f"warning: {shared} of the {len(val)} validation images are identical to training images, pixel"
            " by pixel: the validation metrics are better than on new images."
        )


def class_pixels(examples):
    """Return the number of pixels of each class id in the masks of a split, int64 [256].

    examples: the `core.data.cache.Examples` of the split. If `examples.masks` holds the masks of both splits,
    the attribute `examples.class_pixels` counts both splits. Then this function counts the split's pixels.
    """
    if len(examples) == len(examples.masks):
        return examples.class_pixels
    counts = (np.bincount(examples.masks[row].ravel(), minlength=256) for row in examples.rows)
    return np.sum(list(counts), axis=0)


def best_metric(experiment, val):
    """Return the name of the metric that chooses the best epoch: `experiment.best`, or "loss".

    If the metric `experiment.best` is NaN or infinite for a perfect prediction of the validation masks, the
    function prints a warning and returns "loss". An example is the IoU of a class without pixels. This IoU is
    0 in epochs in which the network predicts the class for some pixels, and NaN in all other epochs. val: the
    `core.data.cache.Examples` of the validation split.
    """
    classes = len(experiment.classes)
    perfect = np.diag(class_pixels(val)[:classes])  # confusion matrix of a perfect prediction
    if np.isfinite(experiment.metrics(perfect).get(experiment.best, 0)):
        return experiment.best
    print(
        f"warning: {experiment.best} is undefined for these validation masks; instead, the smallest"
        " validation loss chooses the best epoch."
    )
    return "loss"


def image_files(dataset, flags):
    """Return the number of photos of each split, and a checksum of the names of their files.

    The result is [[number, checksum], [number, checksum]]: first training, then validation. If the split is
    random, both pairs describe all photos. With --limit, only the first photos count. A checksum is the
    CRC-32 of the paths of photos and masks, relative to the data set's folder. The function calls
    `dataset.find` and decodes no file.

    dataset: the experiment's `Dataset`. flags: the parsed flags.
    """
    data_dir = Path(flags.data_dir) if flags.data_dir else cache.generated(dataset, Path(flags.cache_dir))
    splits = []
    for split in ("train", "val"):
        with remarks.collect():  # discards remarks about the files, because `cache.load_split` prints them
            files = list(dataset.find(data_dir, split))[: flags.limit or None]
        names = [os.path.relpath(path, data_dir) for paths in files for path in paths]
        splits.append([len(files), zlib.crc32("\n".join(names).encode("utf-8", "surrogateescape"))])
    return splits
