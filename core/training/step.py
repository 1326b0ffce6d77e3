"""One training step."""

import dataclasses

import tensorflow as tf

from core import losses
from core.runtime import distribution
from core.training import optimizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of the weight updates. Each field is a flag, except steps, the number of all steps."""

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
    """Return the `Recipe` of a run's flags. steps: the number of steps of the training."""
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"steps"}
    return Recipe(steps=steps, **{name: flags[name].value for name in fields})


def make_train_step(experiment, weights, slots, averages, dtype, recipe):
    """Return a function (images, masks, share, seed) -> loss that performs one training step.

    The step updates weights, slots (`optimizer.init_slots`) and averages
    (`optimizer.init_averages`, or an empty dict) in place.

    images: uint8 [B, H, W, 3]. masks: class ids uint8 [B, H, W]. share: float32, 1 on one
    device. seed: int64 [2], for the random choices of the forward pass, such as dropout.
    The loss is a float32 scalar: the batch's mean before the update. dtype: the dtype of
    activations; weights, loss and optimizer are float32. On one device, a smaller batch
    does not retrace the function; on several devices, the first smaller batch does.

    On several replicas, each gets a part of the batch, and share is the number of its
    examples over the batch's. The gradients are summed, so they equal the gradients of the
    whole batch's mean loss up to rounding. Dropout and batch normalisation's batch
    statistics are computed per replica; the moving statistics are the replicas' mean.
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
        gradients = tape.gradient(scaled_loss, trainable)
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

    return _compiled(train_step, xla=recipe.xla)


def _loss(experiment, recipe, logits, masks):
    """Return the loss of each example, float32 [B]: the experiment's, plus Dice if the recipe has it."""
    loss = experiment.loss(logits, masks)
    return loss + recipe.dice * losses.dice(logits, masks) if recipe.dice else loss


def _replica_seed(seed, replica):
    """Return the step's seed plus 2**40 times the replica's index, so that no two seeds are equal."""
    return seed + [0, tf.cast(replica.replica_id_in_sync_group, tf.int64) * 2**40]


def _compiled(train_step, *, xla):
    """Return a `tf.function` that runs the step on all replicas of the current strategy."""
    strategy = tf.distribute.get_strategy()
    signature = [
        tf.TensorSpec([None, None, None, 3], tf.uint8),
        tf.TensorSpec([None, None, None], tf.uint8),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([2], tf.int64),
    ]

    @tf.function(
        # no Python condition depends on a tensor; without AutoGraph, tracing takes half the time
        autograph=False,
        input_signature=signature if strategy.num_replicas_in_sync == 1 else None,
        reduce_retracing=True,
        jit_compile=xla or None,
    )
    def compiled(images, masks, share, seed):
        return distribution.first(strategy.run(train_step, (images, masks, share, seed)))

    return compiled
