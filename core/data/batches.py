"""Batches of decoded examples, in an order that is a function of (seed, epoch).

A batch is (images uint8 [B, H, W, 3], masks uint8 [B, H, W], share float32 []). With
several replicas, the data set yields one part of each batch per replica of this
process; `share` is then the number of examples in the part divided by the number in
the batch. If the last batch has fewer examples than there are replicas, each replica
without an example gets a copy of another replica's example, with share 0.
"""

import math

import numpy as np
import tensorflow as tf

ALONE = tf.distribute.InputContext()  # a single replica


def training(examples, batch_size, *, seed, epoch, first_step=0, changes=(), context=ALONE):
    """Return a `tf.data.Dataset` of the batches of an epoch, starting at step first_step.

    Each epoch shuffles the whole set; the last batch may be smaller. changes: functions
    like those of `core.data.augment`, applied in order; their random choices are a
    function of (seed, epoch, example).
    """

    def changed(image, mask, row):
        return *change(image, mask, row, [seed, epoch], changes), row

    rows = order(examples, seed, epoch)[first_step * batch_size :]
    return _batched(examples, rows, batch_size, context, changed if changes else None)


def order(examples, seed, epoch):
    """Return the shuffled indices of all examples for an epoch: int64 [N]."""
    return np.random.default_rng([seed, epoch]).permutation(examples.rows)


def change(image, mask, row, seed, changes):
    """Apply the changes to the example with index `row`: uint8 [H, W, 3] and uint8 [H, W].

    seed: int64 [2], the run's seed and the epoch. Returns the changed image and mask.
    """
    row_seed = tf.random.experimental.stateless_fold_in(seed, row)
    for number, each in enumerate(changes):
        image, mask = each(image, mask, tf.random.experimental.stateless_fold_in(row_seed, number))
    return image, mask


def evaluation(examples, batch_size, context=ALONE):
    """Return a `tf.data.Dataset` of batches in a fixed order; the last batch may be smaller."""
    return _batched(examples, examples.rows, batch_size, context)


def _batched(examples, rows, batch_size, context, changed=None):
    """Return a `tf.data.Dataset` that yields, for each batch of rows, the part of each local replica."""
    replicas = context.num_replicas_in_sync
    here = replicas // context.num_input_pipelines
    mine = slice(context.input_pipeline_id * here, (context.input_pipeline_id + 1) * here)

    def batched(rows, size, share):
        data = tf.data.Dataset.from_tensor_slices(rows).map(_reader(examples))
        if changed:
            data = data.map(changed, num_parallel_calls=tf.data.AUTOTUNE)
        share = tf.constant(share, tf.float32)
        return data.batch(size).map(lambda images, masks, rows: (images, masks, share))

    whole, last = np.split(rows, [len(rows) // batch_size * batch_size])
    whole = whole.reshape(-1, replicas, batch_size // replicas)[:, mine].ravel()
    data = batched(whole, batch_size // replicas, 1 / replicas)
    if len(last):
        for part in np.array_split(last, replicas)[mine]:
            filled = part if len(part) else last[:1]
            data = data.concatenate(batched(filled, len(filled), len(part) / len(last)))
    untuned = tf.data.Options()
    untuned.autotune.enabled = False  # tf.data's autotuner can delay iterator shutdown by up to 60 s
    return data.prefetch(2).with_options(untuned)


def _reader(examples):
    """Return a function row -> (image, mask, row) for `tf.data`."""

    def read(row):
        image, mask = tf.numpy_function(
            lambda row: (_copied(examples.images, row), _copied(examples.masks, row)),
            [row],
            [tf.uint8, tf.uint8],
            stateful=False,
        )
        image.set_shape(examples.images.shape[1:])
        mask.set_shape(examples.masks.shape[1:])
        return image, mask, row

    return read


def _copied(array, row):
    """Return array[row] of a memory-mapped array, read from its file so that no page stays mapped."""
    shape = array.shape[1:]
    size = math.prod(shape)
    return np.fromfile(array.filename, np.uint8, size, offset=row * size).reshape(shape)
