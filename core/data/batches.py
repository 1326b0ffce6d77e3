"""Make batches of decoded examples for training and for evaluation.

A row is the index of an example in the arrays of a `core.data.cache.Examples`, whose attribute `rows` holds
the rows of one split. The order of training examples is a function of the run's seed and of the epoch.
Evaluation examples have the order of the attribute `rows`.

`training` and `evaluation` return a `tf.data.Dataset` whose elements are tuples (images, masks, share):
images uint8 [B, H, W, 3], masks uint8 [B, H, W], share float32 []. With one replica, each element is a
batch, and share is 1.

With several replicas, each batch is divided into one part per replica. The elements of the `Dataset` are
the parts for the replicas of this process. share is the number of examples in the part divided by the
number of examples in the batch. If the last batch has fewer examples than there are replicas, some parts
would be empty. Each of these parts gets a copy of the batch's first example, and the share 0.
"""

import math
import os

import numpy as np
import tensorflow as tf

from core.runtime.errors import InputError

ALONE = tf.distribute.InputContext()  # a single replica


def training(examples, batch_size, *, seed, epoch, first_step=0, changes=(), context=ALONE):
    """Return the shuffled batches of one epoch, augmented by `changes`, as a `tf.data.Dataset`.

    examples:    `core.data.cache.Examples`. All examples of the split are shuffled together, without a
                 shuffle buffer.
    batch_size:  number of examples in a batch, for all replicas together. It must be a multiple of the
                 number of replicas. The last batch may be smaller.
    seed, epoch: the run's seed, and the number of the epoch, counted from 0.
    first_step:  number of batches to skip at the start of the epoch.
    changes:     augmentation functions, applied in this order. They have the signature of the functions in
                 `core.data.augment`. The random choices of a function depend on seed, epoch, the example's
                 row and the function's position in changes.
    context:     `tf.distribute.InputContext`: the number of replicas, and which replicas belong to this
                 process.
    """

    def changed(image, mask, row):
        """Apply `changes` to an example; return the changed image, the changed mask, and row."""
        return *change(image, mask, row, [seed, epoch], changes), row

    rows = order(examples, seed, epoch)[first_step * batch_size :]
    return _batched(examples, rows, batch_size, context, changed if changes else None)


def order(examples, seed, epoch):
    """Return the rows of the split's N examples, in the shuffled order of an epoch: int64 [N].

    examples, seed, epoch: see `training`.
    """
    return np.random.default_rng([seed, epoch]).permutation(examples.rows)


def change(image, mask, row, seed, changes):
    """Apply augmentations to an example; return the changed image and mask.

    image: uint8 [H, W, 3]. mask: uint8 [H, W]. row: int64 [], the example's row. seed: int64 [2], the
    run's seed and the epoch. changes: the augmentation functions. Each function gets a different seed,
    which is derived from `seed`, `row` and the function's position in `changes`.
    """
    row_seed = tf.random.experimental.stateless_fold_in(seed, row)
    for number, each in enumerate(changes):
        image, mask = each(image, mask, tf.random.experimental.stateless_fold_in(row_seed, number))
    return image, mask


def evaluation(examples, batch_size, context=ALONE):
    """Return the batches of a split as a `tf.data.Dataset`, without shuffling or augmentation.

    The examples have the order of `examples.rows`. The last batch may be smaller than batch_size.
    `training` describes batch_size and context.
    """
    return _batched(examples, examples.rows, batch_size, context)


def _batched(examples, rows, batch_size, context, changed=None):
    """Return a `tf.data.Dataset` of batches or, with several replicas, of the parts for this process.

    rows: int64 [N], the rows of the examples in the order in which the batches contain them. examples,
    batch_size, context: see `training`. changed: a function (image, mask, row)
    -> (image, mask, row) that augments an example; None: examples are not augmented.
    """
    replicas = context.num_replicas_in_sync
    here = replicas // context.num_input_pipelines  # number of replicas of this process
    # the replicas of this process, as a slice of all replicas
    mine = slice(context.input_pipeline_id * here, (context.input_pipeline_id + 1) * here)

    def parts(rows, size, share):
        """Return a `tf.data.Dataset` of parts. Each part has `size` examples and the same share.

        rows: int64, the rows of the first part's examples, then of the second part's examples, and so on.
        """
        data = tf.data.Dataset.from_tensor_slices(rows).batch(size).map(_reader(examples))
        if changed:
            data = data.unbatch().map(changed, num_parallel_calls=tf.data.AUTOTUNE).batch(size)
        share = tf.constant(share, tf.float32)
        return data.map(lambda images, masks, rows: (images, masks, share))

    whole, last = np.split(rows, [len(rows) // batch_size * batch_size])
    # After `reshape`, the axes are batches, replicas, and the examples of a replica. [:, mine] keeps the
    # replicas of this process.
    whole = whole.reshape(-1, replicas, batch_size // replicas)[:, mine].ravel()
    data = parts(whole, batch_size // replicas, 1 / replicas)
    if len(last):
        for part in np.array_split(last, replicas)[mine]:
            filled = part if len(part) else last[:1]
            data = data.concatenate(parts(filled, len(filled), len(part) / len(last)))
    untuned = tf.data.Options()
    untuned.autotune.enabled = False  # tf.data's autotuner can delay iterator shutdown by up to 60 s
    return data.prefetch(2).with_options(untuned)


def _reader(examples):
    """Return a function rows -> (images, masks, rows) that reads examples in a `tf.data` pipeline.

    Raises InputError if an array of the examples maps only a part of its file, or if the file is shorter than
    the array.
    """
    for array in (examples.images, examples.masks):
        # `_copied` computes positions in the file from rows, so an array must map its whole file
        if os.path.exists(array.filename) and os.path.getsize(array.filename) != array.nbytes:
            raise InputError(
                f"{array.filename}: its size differs from the mapped array; select examples by rows, not by"
                " slicing, or, if the file is damaged, delete its folder."
            )

    def read(rows):
        """Return (images, masks, rows): uint8 [B, H, W, 3], uint8 [B, H, W] and the argument rows."""
        images, masks = tf.numpy_function(
            lambda rows: (_copied(examples.images, rows), _copied(examples.masks, rows)),
            [rows],
            [tf.uint8, tf.uint8],
            stateful=False,
        )
        images.set_shape([None, *examples.images.shape[1:]])
        masks.set_shape([None, *examples.masks.shape[1:]])
        return images, masks, rows

    return read


def _copied(array, rows):
    """Return a copy of array[rows]. array: `np.memmap`, uint8. rows: int64 [B].

    The copy is read from the array's file, not through the memory mapping, because memory pages that are
    read through a mapping stay in the process's memory. If another process has deleted the file, the copy is
    read through the mapping.
    """
    shape = array.shape[1:]
    size = math.prod(shape)
    try:
        copies = [np.fromfile(array.filename, np.uint8, size, offset=row * size) for row in rows]
    except FileNotFoundError:
        return array[rows]
    return np.stack([copy.reshape(shape) for copy in copies])
