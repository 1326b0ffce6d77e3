"""`Experiment` and `Dataset`: dataclasses with the data, network, loss and metrics of an experiment.

The script of an experiment makes one `Experiment`, which contains a `Dataset`. The training loop and the
commands for trained runs receive the `Experiment` as an argument, and the data cache receives the `Dataset`.
The training loop and the cache therefore need not import a script.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IGNORE = 255  # class id of pixels that are left out of the loss and of the metrics

Files = tuple[Path, ...]  # files that are read together: a photo and its mask, or one file that holds both


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set: its settings, and the functions that find, read, generate and check its files.

    name:      the name of the data set. The names of its cache folders begin with this name.
    find:      (data_dir, split) -> list of `Files`, in the same order on every file system. split is
               "train" or "val". Raises InputError if the folder holds no files of this data set.
    read:      (files, split) -> photos uint8 [K, H, W, 3] and class ids uint8 [K, H, W]. files is one item
               of the list from `find`. K is 1, or the number of patches if `read` cuts the photo into
               patches. H and W are the same for all files of a split. If `find` returns the same files for
               both splits, the arrays must not depend on the split, because each file is decoded only
               once. Raises InputError if a file is unreadable. The cache decodes the files again after an
               edit of the module that defines `read`, but not after an edit of further modules that you wrote
               and `read` calls.
    settings:  name -> JSON value: all settings that change the arrays from `read`. The cache decodes the
               files again if a setting changes.
    generate:  (folder) -> None: writes generated photos and masks in the layout that `find` expects.
    check:     (pixels, files) -> None: prints remarks about the training masks, for example the share of each
               class. Raises InputError if no network can be trained with these masks. files: the readable
               files among the files that `find` returns for "train". pixels: int64 [256], the number of mask
               pixels of each class id in files.
    size:      side of the squares, in pixels, to which `read` resizes validation photos. None if `read` cuts
               patches. Prediction resizes photos to this size, and if it is None, photos keep their size.
    resample:  the Pillow filter with which `read` resizes photos. Prediction uses the same filter.
    select:    (owner, split) -> int64 vector: the indices of the decoded examples that belong to the split.
               By default, these are all decoded examples. owner: int64 [number of decoded examples], for each
               example the index of its files in the list from `find` without the unreadable files.
    """

    name: str
    find: Callable[[Path, str], Sequence[Files]]
    read: Callable[[Files, str], tuple[np.ndarray, np.ndarray]]
    settings: Mapping[str, Any]
    generate: Callable[[Path], None]
    size: int | None
    check: Callable[[np.ndarray, Sequence[Files]], None] = lambda pixels, files: None
    resample: Image.Resampling = Image.Resampling.BILINEAR
    select: Callable[[np.ndarray, str], np.ndarray] = lambda owner, split: np.arange(len(owner))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment: its classes, data, network, loss and metrics.

    name:          the name of the experiment's script in the package `experiments`.
    classes:       the name of each class, in the order of the class ids 0, 1, 2, ...
    palette:       the RGB colour of each class in pictures, 0..255.
    dataset:       the `Dataset`.
    init_weights:  (*, seed) -> dict of name -> tf.Variable with initial values. Names must not begin with
                   "adam/", "scaling/" or "average/", because checkpoints use these prefixes.
    forward:       (weights, images, *, training=False, seed=None) -> logits [B, H, W, classes]. For two
                   classes, [B, H, W, 1] is also possible. weights: name -> tf.Variable; with training=False,
                   the values may also be tensors, which have no attributes of variables such as `trainable`.
                   images: [B, H, W, 3] with values 0..255. training: True in a training step, False in
                   validation and prediction. seed: int64 [2] for random choices such as dropout, or None.
    loss:          (logits, masks) -> float32 [B], the loss of each example. logits are float32, and masks
                   are class ids, uint8 [B, H, W]; see `core.losses`. Bind the values of flags with
                   `functools.partial`, because `experiments.compare` compares bound arguments. If the mean
                   loss of a training step is negative (beyond rounding) or at least 100, the run ends with an
                   error.
    metrics:       (confusion matrix [classes, classes]) -> dict of name -> number. The matrix is int64.
                   Only `experiments.compare` passes float64, with integer values.
    best:          the name of a metric from `metrics` or `measures`. The best checkpoint is the checkpoint
                   with the largest value of this metric on the validation split. If best is "loss", the best
                   checkpoint has the smallest validation loss.
    measures:      name -> function, for metrics that cannot be computed from a confusion matrix. Each
                   function maps (logits, masks) to the metric of each example, float32 [B]. The value of the
                   metric is the mean over all validation examples. If one of them is NaN, the mean is NaN.
    augment:       functions (image uint8 [H, W, 3], mask uint8 [H, W], seed int64 [2]) -> (image, mask) that
                   change training examples at random. They are applied one after another.
    ignore:        True if masks may hold the class id IGNORE. If False, masks with this id raise InputError.
    load_weights:  (weights) -> None: assigns published values to some of the variables of a new run. A run
                   with --init_from does not call this function. The default function assigns nothing.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    dataset: Dataset
    init_weights: Callable[..., dict]
    forward: Callable
    loss: Callable
    metrics: Callable[[np.ndarray], Mapping[str, float]]
    best: str
    measures: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    augment: Sequence[Callable] = ()
    ignore: bool = False
    load_weights: Callable[[dict], None] = lambda weights: None
