"""The training step: forward pass, loss, gradients and update of the weights, as one `tf.function`."""

import dataclasses

import tensorflow as tf

from core import losses
from core.runtime import distribution
from core.runtime.errors import InputError
from core.training import optimizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of the training step.

    `steps` is the number of steps of the whole training. All other fields have the values of the flags with
    the same names, see `core.training.common_flags`.
    """

    learning_rate: float
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    steps: int = 1
    dice: float = 0.0
    ema_decay: float = 0.0
    xla: bool = False


def recipe_from_flags(flags, steps):
    """Return the `Recipe` with the values of the parsed flags.

    steps: the number of steps of the whole training.
    """
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"steps"}
    return Recipe(steps=steps, **{name: flags[name].value for name in fields})


def make_train_step(experiment, weights, slots, averages, dtype, recipe, size=(None, None)):
    """Return a function (images, masks, share, seed) -> loss that performs one training step.

    weights, slots, averages: dicts of variables, see `core.training.optimizer`. The step updates them in
    place. averages may be empty. dtype: the dtype of the activations. Loss and gradients are float32. size:
    the (height, width) of all images, if known. With known sizes, TensorFlow traces fewer ops, in less time.

    Arguments and result of the returned function:

        images  uint8 [B, H, W, 3]
        masks   uint8 [B, H, W], class ids
        share   float32 scalar: the number of examples in this replica's part of the batch, divided by the
                number of examples in the whole batch; 1 on one device; 0 if the part is only a
                copy of an example, see `core.data.batches`
        seed    int64 [2], for the random choices of the forward pass, such as dropout
        loss    float32 scalar, the mean loss of the whole batch before the update

    On several replicas, the gradients of all replicas are summed. Up to rounding, the sum is the gradient of
    the mean loss of the whole batch. Each replica draws its own dropout masks and computes its own batch
    statistics. The moving averages of batch normalisation become the mean over the replicas.

    The last batch of an epoch may be smaller than the other batches. On one device, the smaller batch uses
    the same graph, but --xla compiles this graph once more. On several devices, TensorFlow traces the step
    again at the first smaller batch.
    """
    trainable = {name: weight for name, weight in weights.items() if weight.trainable}

    def train_step(images, masks, share, seed):
        replica = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            logits = experiment.forward(
                weights, tf.cast(images, dtype), training=True, seed=_replica_seed(seed, replica)
            )
            loss = share * tf.reduce_mean(_loss(experiment, recipe, tf.cast(logits, tf.float32), masks))
            scaled_loss = optimizer.scale_loss(loss, slots)
        gradients = check_used(tape.gradient(scaled_loss, trainable))
        loss, gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, (loss, gradients))
        optimizer.update_unscaled(update, gradients, slots)
        return loss

    def update(gradients):
        rate = optimizer.learning_rate(
            slots["adam/step"],
            peak=recipe.learning_rate,
            shape=recipe.schedule,
            warmup_steps=recipe.warmup_steps,
            steps=recipe.steps,
        )
        optimizer.update(
            trainable,
            slots,
            gradients,
            learning_rate=rate,
            clip_norm=recipe.clip_norm,
            weight_decay=recipe.weight_decay,
        )
        optimizer.update_averages(averages, weights, slots["adam/step"], decay=recipe.ema_decay)

    return _compiled(train_step, size, xla=recipe.xla)


def check_used(gradients):
    """Return the gradients, a dict: name of a trainable variable -> tensor.

    Raises InputError if a gradient is None: the loss does not depend on the variable, or `tf.stop_gradient`
    stops the gradient.
    """
    unused = [name for name, gradient in gradients.items() if gradient is None]
    if unused:
        raise InputError(
            f"{', '.join(unused)}: no gradient of the loss reaches these weights; use them in the network,"
            " create them with trainable=False if they are frozen, or remove them from its initial weights."
        )
    return gradients


def _loss(experiment, recipe, logits, masks):
    """Return the loss of each example, float32 [B]: experiment.loss + recipe.dice * losses.dice."""
    loss = experiment.loss(logits, masks)
    return loss + recipe.dice * losses.dice(logits, masks) if recipe.dice else loss


def _replica_seed(seed, replica):
    """Return a seed, int64 [2], that is different for each step and replica.

    seed: int64 [2]: the seed of the run, and the number of the step. replica: the replica's
    `tf.distribute.ReplicaContext`. The function adds the replica's index times 2**40 to the number of the
    step. Steps are below 2**40, so this sum is different for each step and replica.
    """
    return seed + [0, tf.cast(replica.replica_id_in_sync_group, tf.int64) * 2**40]


def _compiled(train_step, size, *, xla):
    """Return a `tf.function` that runs train_step on all replicas and returns the loss.

    size: the (height, width) of all images, if known. xla: True compiles the function with XLA.
    """
    strategy = tf.distribute.get_strategy()
    signature = [
        tf.TensorSpec([None, *size, 3], tf.uint8),
        tf.TensorSpec([None, *size], tf.uint8),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([2], tf.int64),
    ]

    @tf.function(
        # AutoGraph slows tracing. It is not needed, because no Python condition depends on a tensor.
        autograph=False,
        input_signature=signature if strategy.num_replicas_in_sync == 1 else None,
        reduce_retracing=True,
        jit_compile=xla or None,
    )
    def compiled(images, masks, share, seed):
        return distribution.first(strategy.run(train_step, (images, masks, share, seed)))

    return compiled
