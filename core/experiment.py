"""`Experiment` and `Dataset`: records of the functions that differ between two articles.

The training loop and the commands for trained runs take an `Experiment`, the data cache takes a
`Dataset`; neither depends on an article's script.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IGNORE = 255  # class id of pixels that are left out of loss and metrics

Files = tuple[Path, ...]  # the files of one example: one pair, or a photo and its mask


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The files of a data set, and the functions that read them.

    find:      (data_dir, split) -> the files of each example, in an order that is the same on every
               file system. split is "train" or "val". Raises InputError if there are none.
    read:      (files, split) -> photos uint8 [K, H, W, 3] and class ids uint8 [K, H, W]: the K examples
               in these files, usually one. H and W are the same for the whole split. If `find` returns
               the same files for both splits, `read` must not depend on the split, because the files
               are decoded once. Raises InputError.
    settings:  everything besides the files that `read` depends on; JSON values.
    generate:  (folder) -> None: writes a generated data set that `find` understands.
    check:     (pixels of each class id int64 [256], files) -> None: warns of unusual training masks,
               and raises InputError if no network could learn from them.
    resample:  the filter with which `read` resizes photos, if it resizes them.
    select:    (owner int64 [N]: the index of each example's files, split) -> indices of the examples
               that make up the split; by default all examples.
    size:      the side, in pixels, that `read` resizes validation photos to; None if it cuts patches.
    white_level:  the sample value of white in photos with more than 8 bits per sample; 0: it is detected
               for each file, see `core.data.images.read_rgb`.
    """

    name: str
    find: Callable[[Path, str], Sequence[Files]]
    read: Callable[[Files, str], tuple[np.ndarray, np.ndarray]]
    settings: Mapping[str, Any]
    generate: Callable[[Path], None]
    check: Callable[[np.ndarray, Sequence[Files]], None] = lambda pixels, files: None
    resample: Image.Resampling = Image.Resampling.BILINEAR
    select: Callable[[np.ndarray, str], np.ndarray] = lambda owner, split: np.arange(len(owner))
    size: int | None = None
    white_level: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One article: its classes, data, network, loss and metrics.

    name:          the name of its module in `experiments`.
    palette:       RGB of each class, 0..255.
    init_weights:  (seed) -> dict of name -> tf.Variable.
    ignore:        True if masks may hold the class id IGNORE. Otherwise such masks are refused.
    load_weights:  (weights) -> None: assigns published values to some weights when a run begins.
    forward:       (weights, images [B, H, W, 3] 0..255, training, seed) -> logits
                   [B, H, W, classes], or [B, H, W, 1] for two classes.
    loss:          (float32 logits, class ids) -> float32 [B], at least 0, see `core.losses`.
    metrics:       (confusion matrix int64 [classes, classes]) -> name -> value.
    best:          name of the metric, larger is better, that chooses the best checkpoint.
    measures:      name -> function (float32 logits, class ids) -> float32 [B], for metrics that a
                   confusion matrix does not contain. The mean over all examples is reported.
    augment:       functions (image uint8 [H, W, 3], mask uint8 [H, W], seed int64 [2])
                   -> (image, mask), changed at random. They are applied to training examples.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    dataset: Dataset
    init_weights: Callable[[int], dict]
    forward: Callable
    loss: Callable
    metrics: Callable[[np.ndarray], Mapping[str, float]]
    best: str
    measures: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    augment: Sequence[Callable] = ()
    ignore: bool = False
    load_weights: Callable[[dict], None] = lambda weights: None
