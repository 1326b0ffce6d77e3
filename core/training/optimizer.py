"""The optimizer: Adam, its learning rate, loss scaling for float16, and averaged weights.

To change the optimizer, edit `adam`. All functions update variables in place. In a distributed
step each replica applies the same update to its own copy of a variable.
Variables are named "adam/...", "scaling/..." and "average/..." in checkpoints.
"""

import functools
import math

import tensorflow as tf

from core.lowering import fused_adam
from core.runs.checkpoint import AVERAGE

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7  # Keras' constants
SCHEDULES = ("constant", "cosine")
FIRST_SCALE = 2.0**15  # the loss scale of the first step
STEPS_TO_DOUBLE = 2000  # number of steps without overflow after which the loss scale doubles


def adam(weight, mean, square, gradient, *, step, learning_rate):
    """Return a weight and its two moments after one step of Adam (Kingma and Ba, 2015).

    weight, mean, square, gradient: float32 of one shape; mean and square are the moving
    averages of the gradient and of its square. step: float32, 1 in the first step.
    """
    mean = mean + (gradient - mean) * (1 - tf.constant(BETA1))
    square = square + (tf.square(gradient) - square) * (1 - tf.constant(BETA2))
    rate = learning_rate * tf.sqrt(1 - BETA2**step) / (1 - BETA1**step)  # corrects the moments' bias
    return weight - mean * rate / (tf.sqrt(square) + EPSILON), mean, square


def update(weights, slots, gradients, *, learning_rate, clip_norm=0.0, weight_decay=0.0):
    """Apply one step of `adam` to each variable.

    gradients: name -> float32 tensor, for the trainable variables. clip_norm: gradients with
    a larger global norm are scaled down to this norm; 0 disables it. weight_decay: before the
    step, kernels are multiplied by 1 - weight_decay * learning rate (AdamW: Loshchilov and
    Hutter, 2019); biases and scales are not decayed.

    Where the traced graph of `adam` is exactly the formula above, TensorFlow's fused op computes
    it, with the same bits on a CPU; an edited `adam` runs as written.
    """
    if clip_norm:
        clipped, _ = tf.clip_by_global_norm(list(gradients.values()), clip_norm)
        gradients = dict(zip(gradients, clipped))
    tf.raw_ops.AssignAddVariableOp(resource=slots["adam/step"].handle, value=tf.constant(1, tf.int64))
    step = tf.cast(slots["adam/step"], tf.float32)
    is_fused = functools.cache(lambda shape: fused_adam.computes(adam, shape, BETA1, BETA2, EPSILON))
    for name, gradient in gradients.items():
        weight, mean, square = weights[name], slots[f"adam/mean/{name}"], slots[f"adam/square/{name}"]
        if weight_decay and weight.shape.rank > 1:
            tf.raw_ops.AssignSubVariableOp(
                resource=weight.handle, value=learning_rate * weight_decay * weight
            )
        if is_fused(tuple(weight.shape)):
            fused_adam.apply(weight, mean, square, gradient, step, learning_rate, BETA1, BETA2, EPSILON)
            continue
        values = adam(
            *map(tf.convert_to_tensor, (weight, mean, square)),
            gradient,
            step=step,
            learning_rate=learning_rate,
        )
        for variable, value in zip((weight, mean, square), values):
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


def learning_rate(step, *, peak, shape, warmup_steps, steps):
    """Return the learning rate of a step as float32.

    step: int64, 0 in the first step. The rate grows linearly to `peak` over the first
    warmup_steps. Then it is constant (shape "constant") or falls along half a cosine that would
    reach 0 one step after the last of `steps` ("cosine": Loshchilov and Hutter, 2017,
    without restarts).
    """
    step = tf.cast(step, tf.float32)
    warm = tf.minimum((step + 1) / (warmup_steps + 1), 1.0)
    if shape == "constant":
        return peak * warm
    done = tf.maximum(step - warmup_steps, 0.0) / max(steps - warmup_steps, 1)
    return peak * warm * (1 + tf.cos(math.pi * done)) / 2


def init_slots(weights, dtype):
    """Return the variables of the optimizer, name -> `tf.Variable`, all zero at first.

    They are the step count, the two moments of each trainable variable and, if activations are
    float16, the loss scale and the number of steps since it last changed.
    """
    slots = {"adam/step": tf.Variable(0, trainable=False, dtype=tf.int64)}
    for name, weight in weights.items():
        if weight.trainable:
            for moment in ("mean", "square"):
                slots[f"adam/{moment}/{name}"] = tf.Variable(tf.zeros_like(weight), trainable=False)
    if dtype == tf.float16:
        slots["scaling/factor"] = tf.Variable(FIRST_SCALE, trainable=False)
        slots["scaling/steps"] = tf.Variable(0, trainable=False, dtype=tf.int64)
    return slots


def scale_loss(loss, slots):
    """Return the loss times the loss scale, or the loss itself if there is no loss scaling.

    Without scaling, most gradients would be below the smallest float16 number.
    """
    return loss * slots["scaling/factor"] if "scaling/factor" in slots else loss


def update_unscaled(update, gradients, slots):
    """Call update(gradients) with the gradients divided by the loss scale.

    gradients: name -> float32 tensor of the scaled loss, summed over all replicas. If a gradient
    is not finite, the step is skipped and the scale is halved; after STEPS_TO_DOUBLE steps
    without overflow the scale doubles (Micikevicius et al., 2018, section 3.2).
    """
    if "scaling/factor" not in slots:
        update(gradients)
        return
    scale, steps = tf.identity(slots["scaling/factor"]), tf.identity(slots["scaling/steps"])
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients.values()])
    tf.cond(
        finite,
        lambda: update({name: each / scale for name, each in gradients.items()}),
        lambda: None,
    )
    grows = finite & (steps + 1 >= STEPS_TO_DOUBLE)
    scale = tf.where(finite, tf.where(grows, 2 * scale, scale), scale / 2)
    steps = tf.where(finite & ~grows, steps + 1, 0)
    tf.raw_ops.AssignVariableOp(resource=slots["scaling/factor"].handle, value=scale)
    tf.raw_ops.AssignVariableOp(resource=slots["scaling/steps"].handle, value=steps)


def init_averages(weights):
    """Return a variable "average/NAME" with the value of each weight.

    Non-trainable weights, such as batch normalisation's moving statistics, are included.
    """
    return {
        AVERAGE + name: tf.Variable(tf.identity(weight), trainable=False) for name, weight in weights.items()
    }


def update_averages(averages, weights, step, *, decay):
    """Update the exponential moving averages of the weights after a training step.

    step: int64, 1 after the first step. The decay rate is the smaller of `decay` and
    (1 + step) / (10 + step), so that the initial weights are forgotten quickly.
    """
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(decay, (1 + step) / (10 + step))
    for name, average in averages.items():
        difference = (1 - decay) * (average - weights[name.removeprefix(AVERAGE)])
        tf.raw_ops.AssignSubVariableOp(resource=average.handle, value=difference)
