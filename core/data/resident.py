"""Make training batches from examples that are stored in the device's memory.

The device, not the host, selects and augments the examples of each batch. This is meant for GPUs that train
faster than the host can supply images, but its speed was not measured on a GPU. The order of the examples and
the seeds of the augmentations are the same as in `core.data.batches`.
"""

import tensorflow as tf

from core.data import batches
from core.runtime.errors import InputError


def make_training(examples, batch_size, *, seed, changes=()):
    """Copy all images and masks to the device; return a function (epoch, first_step) -> iterator.

    The iterator yields the same batches as `batches.training` with one replica; on GPUs, augmented pixels
    may differ by rounding. A batch is a tuple (images, masks, share): images uint8 [B, H, W, 3], masks uint8
    [B, H, W], share float32 [], always 1. first_step: number of batches to skip at the start of the epoch.

    examples, batch_size, seed, changes: see `batches.training`. Raises InputError if the images and masks do
    not fit into the device's memory.
    """
    # The arrays are copied to variables, because on a GPU tf.gather supports uint8 variables, but no uint8
    # tensors.
    try:
        images = tf.Variable(examples.images, trainable=False)
        masks = tf.Variable(examples.masks, trainable=False)
    except (tf.errors.ResourceExhaustedError, tf.errors.InternalError):  # a failed copy raises InternalError
        size = (examples.images.nbytes + examples.masks.nbytes) / 2**20
        raise InputError(
            f"{examples.data_dir}: {size:,.0f} MiB of decoded images do not fit into the device's"
            " memory; leave --data_on_device out."
        ) from None
    fetch = make_fetch(images, masks, seed=seed, changes=changes)

    def training(epoch, first_step):
        """Yield the batches of an epoch. first_step: number of batches to skip at the start of the epoch."""
        order = batches.order(examples, seed, epoch)
        for start in range(first_step * batch_size, len(order), batch_size):
            yield *fetch(order[start : start + batch_size], epoch), tf.constant(1.0)

    return training


def make_fetch(images, masks, *, seed, changes=()):
    """Return a function (rows, epoch) -> (images, masks) that selects and augments the examples of a batch.

    The function takes rows, int64 [B], and epoch, int64 []. It returns images, uint8 [B, H, W, 3], and
    masks, uint8 [B, H, W].

    images: `tf.Variable` uint8 [M, H, W, 3], all images. masks: `tf.Variable` uint8 [M, H, W], all masks.
    seed: the run's seed. changes: augmentations that are applied to each example, see `batches.change`.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)])
    def fetch(rows, epoch):
        def changed(row):
            """Return the augmented example with this row: image and mask as int32."""
            example = tf.gather(images, row), tf.gather(masks, row)
            example = batches.change(*example, row, tf.stack([seed, epoch]), changes)
            return [tf.cast(part, tf.int32) for part in example]  # a GPU cannot stack uint8

        if not changes:
            return tf.gather(images, rows), tf.gather(masks, rows)
        stacked = tf.map_fn(changed, rows, fn_output_signature=[tf.int32, tf.int32])
        return [tf.cast(part, tf.uint8) for part in stacked]

    return fetch
