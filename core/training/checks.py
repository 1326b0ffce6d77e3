"""Checks of the experiment, the network, the masks and the images before a training.

A check raises InputError or prints a warning. Without these checks, a mistake would be noticed after the
training, because of wrong metrics, or not at all.
"""

import numpy as np
import tensorflow as tf

from core.experiment import IGNORE
from core.runs import checkpoint
from core.runtime.errors import InputError

SIDES = (32, 64, 128, 256, 512)  # sides of the images, in pixels, that `_logits` tries in this order


def check_experiment(experiment, weights):
    """Check an experiment, and return the number of logits per pixel of its network.

    weights: name -> `tf.Variable`. Raises InputError in these cases:

    - there are fewer than 2 or more than 255 classes, or two classes have the same name
    - the palette does not have one colour for each class
    - the name of a weight begins with a prefix that checkpoints use for other variables
    - two names mean the same weight, or a weight has a constraint, which the optimizer would ignore
    - the network reads trainable variables that are not among the weights
    - the network has neither one logit per class nor, with two classes, a single logit
    - the logits do not have the height and width of the image
    - the loss or a measure does not return one value per example
    - a metric is not a single number
    - two metrics have the same name, or a metric is called "loss"
    - `experiment.best` is neither "loss" nor the name of a metric
    """
    name, classes = experiment.name, len(experiment.classes)
    if not 2 <= classes <= IGNORE:
        raise InputError(f"{name}: has {classes} classes; 2 to {IGNORE} are possible.")
    if len(set(experiment.classes)) < classes:
        raise InputError(f"{name}: two classes have the same name; give each class its own name.")
    if len(experiment.palette) != classes:
        raise InputError(
            f"{name}: has {classes} classes and {len(experiment.palette)} colours in its palette; give each"
            " class one colour."
        )
    _check_weights(name, weights)
    logits = _logits(experiment, weights)
    channels = logits.shape[-1]
    if channels != classes and (channels, classes) != (1, 2):
        raise InputError(
            f"{name}: has {classes} classes, but its network's logits have {channels} channels; give"
            " the network one channel for each class (or one channel for two classes)."
        )
    _check_shapes(experiment, logits)
    measured = _measured(experiment)
    repeated = sorted(each for each in set(measured) if measured.count(each) > 1)
    if repeated:
        raise InputError(f"{name}: two metrics are called {repeated[0]!r}; rename one of them.")
    if experiment.best not in measured:
        raise InputError(
            f"{name}: best={experiment.best!r} is not one of its metrics; use one of"
            f" {', '.join(sorted(measured))}."
        )
    return channels


def _check_weights(name, weights):
    """Raise InputError for a name or a weight that checkpoints or the optimizer cannot handle.

    name: the experiment's name. weights: name -> `tf.Variable`. `check_experiment` lists the cases.
    """
    prefixes = (checkpoint.AVERAGE, *checkpoint.OPTIMIZER)
    reserved = sorted(each for each in weights if each.startswith(prefixes))
    if reserved:
        raise InputError(
            f"{name}: rename the weight {reserved[0]!r}, because names that begin with {', '.join(prefixes)}"
            " are reserved in checkpoints."
        )
    if len({id(weight) for weight in weights.values()}) < len(weights):
        raise InputError(f"{name}: two names of weights mean the same variable; use one name in both layers.")
    constrained = [each for each, weight in weights.items() if weight.constraint is not None]
    if constrained:
        raise InputError(
            f"{name}: the constraint of {constrained[0]!r} has no effect; apply it in"
            " `core.training.optimizer.update`."
        )


def _check_shapes(experiment, logits):
    """Raise InputError if the loss, a measure or a metric has a wrong shape.

    logits: the logits of one image, [1, H, W, channels].
    """
    name, classes = experiment.name, len(experiment.classes)
    count = 3 if classes == 2 else 2  # differs from classes, so that one value per class is an error
    batch = tf.cast(tf.repeat(logits, count, axis=0), tf.float32)
    for label, function in [("the loss", experiment.loss), *experiment.measures.items()]:
        shape = function(batch, tf.zeros(batch.shape[:3], tf.uint8)).shape
        if shape != [count]:
            raise InputError(
                f"{name}: {label} has the shape {shape} for {count} examples; return one value per example,"
                " [B]."
            )
    for label, value in experiment.metrics(np.zeros([classes, classes], np.int64)).items():
        if np.ndim(value):
            raise InputError(
                f"{name}: the metric {label!r} has the shape {np.shape(value)}; return a single number."
            )


def check_history(experiment, history, folder):
    """Raise InputError if a run was begun with other validation metrics than the experiment has now.

    history: the rows of the run's finished epochs. folder: the run folder.
    """
    now = {f"val_{name}" for name in _measured(experiment)}
    begun = {name for name in history[0] if name.startswith("val_")} if history else now
    if now != begun:
        raise InputError(
            f"{folder} was begun with other metrics ({', '.join(sorted(now ^ begun))} differ); restore the"
            " experiment's metrics, or begin a new --run_dir."
        )


def _measured(experiment):
    """Return a list of the names of the experiment's validation metrics, including "loss"."""
    classes = len(experiment.classes)
    return ["loss", *experiment.measures, *experiment.metrics(np.zeros([classes, classes], np.int64))]


def _logits(experiment, weights):
    """Return the logits of an experiment's network for a square image of zeros, [1, side, side, channels].

    The sides in SIDES are tried until the logits have the size of the image. For the last side, an exception
    of the network is not caught, and logits of another size raise InputError.
    """
    for side in SIDES:
        try:
            with tf.GradientTape() as tape:
                logits = experiment.forward(weights, tf.zeros([1, side, side, 3]))
        except (ValueError, tf.errors.InvalidArgumentError):  # the network does not accept this side
            if side == SIDES[-1]:
                raise
            continue
        if logits.shape[1:3] == [side, side]:
            _refuse_other_variables(experiment, weights, tape)
            return logits
    raise InputError(
        f"{experiment.name}: for an image of {side}x{side} pixels, its network returns logits of the shape"
        f" {logits.shape}; correct the network, so that logits have the height and width of the image."
    )


def _refuse_other_variables(experiment, weights, tape):
    """Raise InputError if a forward pass read a trainable variable that is not among the weights.

    Such a variable, for example of a Keras layer, would be neither trained nor saved. tape: the
    `tf.GradientTape` of the forward pass. With --strategy=mirrored or multi_worker, nothing is checked,
    because the tape then may watch the components of the weights.
    """
    own = {id(weight) for weight in weights.values()}
    others = [each.name for each in tape.watched_variables() if id(each) not in own]
    if others and not tf.distribute.has_strategy():
        raise InputError(
            f"{experiment.name}: the network reads the trainable variable {others[0]!r}, which is not among"
            " its weights, so it would be neither trained nor saved; add it to the initial weights."
        )


def check_examples(experiment, train, val):
    """Check the size of the photos and the class ids in the masks; print warnings about absent classes.

    train, val: the `core.data.cache.Examples` of the splits. Raises InputError if the validation photos do
    not have the size `experiment.dataset.size`, or if the masks hold ids that are not classes. The id IGNORE
    is allowed if `experiment.ignore` is true. The function also calls `experiment.dataset.check` with the
    data of the training split. This call may raise InputError too.
    """
    classes, side = len(experiment.classes), experiment.dataset.size
    height, width = val.images.shape[1:3]
    if side and (height, width) != (side, side):
        raise InputError(
            f"{experiment.name}: the size of its Dataset is {side}, but its validation photos have"
            f" {width}x{height} pixels; correct `size` or `read` of the Dataset."
        )
    for examples in (train, val):
        beyond = [index for index in np.flatnonzero(examples.class_pixels).tolist() if index >= classes]
        if beyond and not (experiment.ignore and beyond == [IGNORE]):
            raise InputError(
                f"{examples.data_dir}: the masks hold class ids {beyond}, but the classes of"
                f" {experiment.name} are 0 to {classes - 1}; correct the function that reads the masks, or"
                f" the experiment's list of classes, or, to leave out pixels of id {IGNORE}, set ignore=True."
            )
    experiment.dataset.check(train.class_pixels, train.files)
    for split, examples in (("training", train), ("validation", val)):
        pixels = examples.split_pixels[:classes]
        absent = [name for name, count in zip(experiment.classes, pixels) if not count]
        if absent:
            print(f"warning: classes without a pixel in the {split} masks: {', '.join(absent)}.")


def warn_of_shared_photos(train, val):
    """Print a warning if validation photos are identical to training photos, pixel by pixel."""
    shared = np.isin(val.split_hashes, train.split_hashes).sum()
    if shared:
        print(
            f"warning: {shared} of the {len(val)} validation images are identical to training images, pixel"
            " by pixel: the validation metrics are better than on new images."
        )


def best_metric(experiment, val):
    """Return the name of the metric that chooses the best epoch: `experiment.best`, or "loss".

    If the metric `experiment.best` is NaN or infinite for a perfect prediction of the validation masks, the
    function prints a warning and returns "loss". An example is the IoU of a class without pixels. This IoU is
    0 in epochs in which the network predicts the class for some pixels, and NaN in all other epochs. val: the
    `core.data.cache.Examples` of the validation split.
    """
    classes = len(experiment.classes)
    perfect = np.diag(val.split_pixels[:classes])  # confusion matrix of a perfect prediction
    if np.isfinite(experiment.metrics(perfect).get(experiment.best, 0)):
        return experiment.best
    print(
        f"warning: {experiment.best} is undefined for these validation masks; instead, the smallest"
        " validation loss chooses the best epoch."
    )
    return "loss"
