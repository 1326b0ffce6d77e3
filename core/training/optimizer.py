"""The optimizer: Adam, learning-rate schedules, loss scaling for float16, and moving averages of weights.

To change the optimizer, edit `adam`. `update`, `update_unscaled` and `update_averages` change variables in
place. In distributed training, each replica has a copy of each variable, and all copies get the same update.

Three arguments of the functions below are dicts of name -> `tf.Variable`:

    weights   the network's variables
    slots     the optimizer's variables. Their names begin with "adam/" or "scaling/". If you add variables
              with another prefix, add the prefix to `core.runs.checkpoint.OPTIMIZER`. Otherwise, commands
              that load a run take these variables for weights
    averages  the moving averages of the weights: "average/NAME" for the weight NAME
"""

import functools
import math

import tensorflow as tf

from core.lowering import fused_adam
from core.runs.checkpoint import AVERAGE

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7  # the defaults of Keras
SCHEDULES = ("constant", "cosine")
FIRST_SCALE = 2.0**15  # the loss scale in the first step
STEPS_TO_DOUBLE = 2000  # number of consecutive steps with finite gradients after which the loss scale doubles


def adam(weight, mean, square, gradient, *, step, learning_rate):
    """Return (weight, mean, square) after one step of Adam (Kingma and Ba, 2015).

    weight, mean, square, gradient: float32 tensors of the same shape. mean is the moving average of the
    gradient, and square is the moving average of the squared gradient. step: float32 scalar, 1 in the first
    step. learning_rate: float32 scalar.
    """
    mean = mean + (gradient - mean) * (1 - tf.cast(BETA1, tf.float32))
    square = square + (tf.square(gradient) - square) * (1 - tf.cast(BETA2, tf.float32))
    rate = learning_rate * tf.sqrt(1 - BETA2**step) / (1 - BETA1**step)  # bias correction of mean and square
    return weight - mean * rate / (tf.sqrt(square) + EPSILON), mean, square


def update(weights, slots, gradients, *, learning_rate, clip_norm=0.0, weight_decay=0.0):
    """Apply one step of `adam` to each weight named in `gradients`, and add 1 to the counter "adam/step".

    gradients: name of a weight -> float32 tensor. clip_norm: the largest global norm of the gradients.
    Larger gradients are scaled down to this norm. 0 disables clipping. weight_decay: each step first
    multiplies kernels by 1 - weight_decay * learning_rate (AdamW: Loshchilov and Hutter, 2019). Variables
    with one axis, such as biases, are not decayed.

    As long as `adam` is not edited, TensorFlow's fused op computes the formula of `adam`, which saves time.
    On a CPU, the results of the fused op and of `adam` are bit-identical. If an edit changes the traced
    graph of `adam`, the function `adam` runs instead of the fused op.
    """
    if clip_norm:
        clipped, _ = tf.clip_by_global_norm(list(gradients.values()), clip_norm)
        gradients = dict(zip(gradients, clipped))
    tf.raw_ops.AssignAddVariableOp(resource=slots["adam/step"].handle, value=tf.constant(1, tf.int64))
    step = tf.cast(slots["adam/step"], tf.float32)
    shared = fused_adam.arguments(step, learning_rate, BETA1, BETA2, EPSILON)
    is_fused = functools.cache(lambda shape: fused_adam.computes(adam, shape, BETA1, BETA2, EPSILON))
    for name, gradient in gradients.items():
        weight, mean, square = weights[name], slots[f"adam/mean/{name}"], slots[f"adam/square/{name}"]
        if weight_decay and weight.shape.rank > 1:
            tf.raw_ops.AssignSubVariableOp(
                resource=weight.handle, value=learning_rate * weight_decay * weight
            )
        if is_fused(tuple(weight.shape)):
            fused_adam.apply(weight, mean, square, gradient, shared)
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
    """Return the learning rate of a training step, a float32 scalar.

    step: int64, the number of updates before this step. steps: the number of steps of the whole training.
    The rate grows linearly during the first `warmup_steps` steps. The next step has the rate `peak`. If shape
    is "constant", all further steps have the rate `peak`. If shape is "cosine", the rate falls along half a
    cosine and would be 0 in the step after the last step (Loshchilov and Hutter, 2017, without restarts). In
    float16, a step with gradients that are not finite makes no update, so the training may end before the
    schedule does.
    """
    step = tf.cast(step, tf.float32)
    warm = tf.minimum((step + 1) / (warmup_steps + 1), 1.0)
    if shape == "constant":
        return peak * warm
    done = tf.maximum(step - warmup_steps, 0.0) / max(steps - warmup_steps, 1)
    return peak * warm * (1 + tf.cos(math.pi * done)) / 2


def init_slots(weights, dtype):
    """Return the initial variables of the optimizer, a dict of name -> `tf.Variable`.

    "adam/step" counts the calls of `update`. "adam/mean/NAME" and "adam/square/NAME" are the moving averages
    of the gradient and of the squared gradient of the trainable weight NAME. These variables begin at 0.

    dtype: the dtype of the activations. If it is float16, the dict also holds "scaling/factor", the loss
    scale, and "scaling/steps", the number of consecutive steps with finite gradients since the loss scale
    changed.
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
    """Return the loss multiplied by the loss scale. If `slots` has no loss scale, return the loss itself.

    Without a loss scale, small gradients would be rounded to 0 in float16.
    """
    return loss * slots["scaling/factor"] if "scaling/factor" in slots else loss


def update_unscaled(update, gradients, slots):
    """Divide the gradients by the loss scale, call update(gradients), and adapt the loss scale.

    update: a function that changes the weights, given a dict name -> unscaled gradient. gradients: name ->
    float32 tensor, the gradients of the scaled loss, summed over all replicas. If a gradient has a NaN or
    infinite value, the argument `update` is not called, and the loss scale is halved. After
    STEPS_TO_DOUBLE consecutive steps with finite gradients, the loss scale is doubled (Micikevicius et al.,
    2018, section 3.2).

    If `slots` has no loss scale, the function calls update(gradients) and does nothing else.
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
    """Return the initial moving averages of the weights: a dict of "average/NAME" -> `tf.Variable`.

    The initial value is the value of the weight NAME. Non-trainable weights, such as the moving averages of
    batch normalisation, also have an average.
    """
    return {
        AVERAGE + name: tf.Variable(tf.identity(weight), trainable=False) for name, weight in weights.items()
    }


def update_averages(averages, weights, step, *, decay):
    """Update the exponential moving averages of the weights after a training step.

    Each average becomes factor * average + (1 - factor) * weight. Here factor is the smaller of two numbers:
    `decay` and (1 + step) / (10 + step). The second number is small in the first steps, so the influence of
    the initial weights soon disappears. step: int64, 1 after the first step.
    """
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(decay, (1 + step) / (10 + step))
    for name, average in averages.items():
        difference = (1 - decay) * (average - weights[name.removeprefix(AVERAGE)])
        tf.raw_ops.AssignSubVariableOp(resource=average.handle, value=difference)
