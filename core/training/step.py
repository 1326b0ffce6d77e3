"""One step of training: the place where weights change."""

import dataclasses

import tensorflow as tf

from core import losses
from core.runtime import distribution
from core.training import adam, averaging, scaling, schedule


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a training changes weights. The fields are flags, but for steps, those of the whole training."""

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
    """`Recipe` of the flags of a run of so many steps."""
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"steps"}
    return Recipe(steps=steps, **{name: flags[name].value for name in fields})


def init_slots(weights, dtype):
    """What steps remember beside the weights, for activations of a dtype: name -> `tf.Variable`."""
    return adam.init_slots(weights) | scaling.init_slots(dtype)


def make_train_step(experiment, weights, slots, averages, dtype, recipe):
    """A function (images, masks, share, seed) -> loss that makes one step of training.

    It changes weights, slots, those of `init_slots`, and averages, those of
    `averaging.init_averages` or none, in place.
    images: uint8 [B, H, W, 3]; masks: class ids uint8 [B, H, W]; share: float32, 1
    where B is the whole batch; seed: int64 [2], decides what is random in the forward
    pass. The loss, a float32 scalar, is the batch's before the step. On one replica
    a batch of another size does not retrace; on several the first one does.

    On several replicas each has its part of the batch, and share, that part's: the
    gradients' sum is that of the whole batch's mean loss, the same as on one device
    but for rounding. The dropout and the statistics of batch normalisation are each
    replica's own, of its part; the moving statistics are the replicas' mean.
    """
    strategy = tf.distribute.get_strategy()
    trainable = {name: weight for name, weight in weights.items() if weight.trainable}

    def loss_of(logits, masks):
        loss = experiment.loss(logits, masks)
        return loss + recipe.dice * losses.dice(logits, masks) if recipe.dice else loss

    def update(gradients):
        rate = schedule.learning_rate(
            slots["adam/step"],
            peak=recipe.learning_rate,
            shape=recipe.schedule,
            warmup_steps=recipe.warmup_steps,
            steps=recipe.steps,
        )
        adam.update(
            trainable,
            slots,
            gradients,
            learning_rate=rate,
            clip_norm=recipe.clip_norm,
            weight_decay=recipe.weight_decay,
        )
        averaging.update(averages, weights, slots["adam/step"], decay=recipe.ema_decay)

    def replica_step(images, masks, share, seed):
        replica = tf.distribute.get_replica_context()
        number = tf.cast(replica.replica_id_in_sync_group, tf.int64)
        seed += [0, number * 2**40]  # far from every step's own
        with tf.GradientTape() as tape:
            logits = experiment.forward(weights, tf.cast(images, dtype), training=True, seed=seed)
            loss = share * tf.reduce_mean(loss_of(tf.cast(logits, tf.float32), masks))
            scaled_loss = scaling.scaled(loss, slots)
        parts = loss, tape.gradient(scaled_loss, trainable)
        loss, gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, parts)
        scaling.apply(update, gradients, slots)
        return loss

    one = [
        tf.TensorSpec([None, None, None, 3], tf.uint8),
        tf.TensorSpec([None, None, None], tf.uint8),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([2], tf.int64),
    ]

    @tf.function(
        autograph=False,  # a forward pass has no tensor in an if: half of the time of tracing saved
        input_signature=one if strategy.num_replicas_in_sync == 1 else None,
        reduce_retracing=True,
        jit_compile=recipe.xla or None,
    )
    def train_step(images, masks, share, seed):
        return distribution.first(strategy.run(replica_step, (images, masks, share, seed)))

    return train_step
