"""What differs between two articles, as two small frozen records of functions.

The training loop and every verb take an `Experiment` and know no article by
name; the data cache takes a `Dataset`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Files = tuple[Path, ...]  # the files of one example: one pair, or a photo and its mask


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Where the files of a data set lie, and how they become pixels.

    find:      (data_dir, split) -> the examples' files, in an order of its own,
               the same on every file system. split is "train" or "val".
               Raises InputError where there are none.
    read:      (files, split) -> photos uint8 [K, H, W, 3] and class ids uint8
               [K, H, W]: the K examples in these files, mostly one; H and W are
               the same for all of a split. Where `find` finds the same files for
               both splits, this reads them alike: they are decoded once. Raises
               InputError.
    settings:  everything besides the files that `read` depends on; JSON values.
    generate:  (folder) -> None: writes a made-up data set that `find` understands.
    check:     (pixels of each class id int64 [256], files) -> None; prints what is
               odd about the training masks, and raises InputError where no network
               could learn from them.
    resample:  how `read` resizes photos, where it does.
    select:    (owner int64 [N]: the index of each example's files, split) -> the
               examples that make up the split; by default all that were found.
    """

    name: str
    find: Callable[[Path, str], Sequence[Files]]
    read: Callable[[Files, str], tuple[np.ndarray, np.ndarray]]
    settings: Mapping[str, Any]
    generate: Callable[[Path], None]
    check: Callable[[np.ndarray, Sequence[Files]], None] = lambda pixels, files: None
    resample: Image.Resampling = Image.Resampling.BILINEAR
    select: Callable[[np.ndarray, str], np.ndarray] = lambda owner, split: np.arange(len(owner))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One article: its classes, data, network, loss and figures.

    name:          that of its module in `experiments`.
    palette:       RGB of each class, 0..255.
    init_weights:  (seed) -> dict of name -> tf.Variable.
    load_weights:  (weights) -> None: puts published values into some of them, where
                   a run begins.
    forward:       (weights, images [B, H, W, 3] 0..255, training, seed) -> logits
                   [B, H, W, classes], or one logit where there are two classes.
    loss:          (float32 logits, class ids) -> float32 [B].
    metrics:       (confusion int64 [classes, classes]) -> figures by name.
    best:          the metric, larger is better, that chooses the best checkpoint.
    measures:      name -> (float32 logits, class ids) -> float32 [B], for figures
                   that no confusion matrix gives; their mean over the examples counts.
    augment:       functions (image uint8 [H, W, 3], mask uint8 [H, W], seed int64 [2])
                   -> the same, changed at random: what a training sees of an example.
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
    load_weights: Callable[[dict], None] = lambda weights: None
