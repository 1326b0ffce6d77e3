"""Results of a network on each validation image, stored in the run folder for later comparisons.

A training with a single replica writes the results to `val_images.npz` right after its last epoch. Results
that are computed later may differ, because the code may have been changed since.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from core.runtime import files

NAME = "val_images.npz"


@dataclasses.dataclass(frozen=True)
class PerImage:
    """The results of a network on N validation images.

    epoch:      int64 [], the number of epochs that the network was trained for
    hashes:     int64 [N], a hash of the pixels of each image, from `core.data.cache.Examples.split_hashes`
    files:      int64 [N]: for each image, an index into the list `core.data.cache.Examples.files`, which
                holds the files that the images were read from. The patches of one photo have the same index.
    confusion:  int64 [N, classes, classes], pixel counts: confusion[n, t, p] is the number of pixels of
                image n with true class t and predicted class p
    loss:       float64 [N], the experiment's loss of each image
    """

    epoch: np.ndarray
    hashes: np.ndarray
    files: np.ndarray
    confusion: np.ndarray
    loss: np.ndarray


def evaluate(evaluate_batches, examples, rows, epoch):
    """Evaluate each image of a split in a batch of its own, and return the results as a `PerImage`.

    evaluate_batches: a function that `core.inference.evaluate.make_evaluate` returned under a strategy with a
    single replica. With several replicas, each replica would evaluate the same image, and the sums would
    count the image once per replica.
    examples: the split, a `core.data.cache.Examples`. rows: an iterable of the values of examples.rows,
    in this order. The training passes an iterable that raises an exception if the training must stop. This
    function does not catch the exception. epoch: the number of epochs that the weights were trained for.
    """
    share = tf.constant(1.0)  # the batch is not divided among replicas, see `core.data.batches`
    results = []
    for row in rows:
        image, mask = examples.images[row : row + 1], examples.masks[row : row + 1]
        results.append(evaluate_batches([(tf.constant(image), tf.constant(mask), share)]))
    return PerImage(
        epoch=np.array(epoch),
        hashes=examples.split_hashes,
        files=examples.owner[examples.rows],
        confusion=np.stack([confusion for _, confusion, _ in results]),
        loss=np.array([means["loss"] for means, _, _ in results]),
    )


def save(folder, results):
    """Write results, a `PerImage`, to the file val_images.npz in a run folder."""
    with files.atomic(folder / NAME) as file:
        np.savez_compressed(file, **dataclasses.asdict(results))


def load(folder):
    """Return the `PerImage` of a run folder, or None if the folder has no val_images.npz.

    Raises InputError if the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    names = [field.name for field in dataclasses.fields(PerImage)]
    arrays = files.read_arrays(path, names)
    return PerImage(**{name: arrays[name] for name in names})
