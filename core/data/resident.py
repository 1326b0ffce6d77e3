"""Batches from examples that lie in the device's memory.

For GPUs that train faster than a processor reads: an example takes no way over the
host, and is changed on the device. The batches are those of `core.data.batches`.
"""

import tensorflow as tf

from core.data import batches
from core.errors import InputError


def make_training(examples, batch_size, *, seed, changes=()):
    """A function (epoch, first_step) -> iterator of the batches of `batches.training`.

    Copies all images and masks to the device. Raises InputError where they do not fit.
    """
    with tf.device("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"):
        try:
            images, masks = tf.identity(examples.images), tf.identity(examples.masks)
        except tf.errors.ResourceExhaustedError:
            size = (examples.images.nbytes + examples.masks.nbytes) / 2**20
            raise InputError(
                f"{examples.data_dir}: {size:,.0f} MiB of decoded images do not fit into the device's"
                " memory; leave --data_on_device out."
            ) from None

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)])
    def fetch(rows, epoch):
        def changed(example):
            return batches.change(*example, tf.stack([seed, epoch]), changes)

        fetched = tf.gather(images, rows), tf.gather(masks, rows)
        if not changes:
            return fetched
        return tf.map_fn(changed, (*fetched, rows), fn_output_signature=(tf.uint8, tf.uint8))

    def training(epoch, first_step=0):
        order = batches.order(examples, seed, epoch)
        for start in range(first_step * batch_size, len(order), batch_size):
            yield *fetch(order[start : start + batch_size], epoch), tf.constant(1.0)

    return training
