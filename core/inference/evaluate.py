"""Compute the loss and the confusion matrix of a network over a data set, and predict class ids."""

import numpy as np
import tensorflow as tf

from core import lowering, metrics
from core.runtime import distribution


def make_evaluate(experiment, weights, dtype):
    """Return a function that evaluates the network: batches -> (means, confusion matrix, wrong pixels).

    batches: an iterable of (images, masks, share), as described in `core.data.batches`.
    means: a dict, name -> float: the mean loss ("loss"), and the mean of each of the experiment's `measures`.
    confusion matrix: int64 [classes, classes]: pixel counts, with one row per true class.
    wrong pixels: int64 [N], the number of wrong pixels of each of the N examples, in the order of the
    batches. A pixel whose true class is IGNORE is never wrong.

    A mean is over all examples, and all examples have the same weight, even if the last batch is smaller.
    A measure may give all examples of a batch the same value, as `soft_jaccard` of the experiment
    dubai_aerial does. The mean of such a measure depends on the batch size and on the number of replicas.

    If there are several replicas, means and confusion matrix include the examples of all replicas. The
    numbers of wrong pixels are then only those of the examples of this process's first replica. Each call
    uses the values that the variables in `weights` have at the time of the call.

    experiment: `core.experiment.Experiment`. weights: name -> tf.Variable. dtype: the dtype of the
    activations.
    """
    classes = len(experiment.classes)
    measures = {"loss": experiment.loss, **experiment.measures}
    strategy = tf.distribute.get_strategy()

    def replica_step(images, masks, share):
        """Evaluate this replica's part of a batch; return (sums, confusion matrix, wrong pixels).

        images, masks, share: an element of `core.data.batches.evaluation`. If share is 0, images and masks
        hold a copy of an example. The copy is left out of the sums and of the confusion matrix. Sums and
        confusion matrix include the examples of all replicas, wrong pixels only those of this replica. The
        forms are those of `_results`.
        """
        with lowering.prediction():
            logits = experiment.forward(weights, tf.cast(images, dtype), training=False)
        *totals, wrong = _results(tf.cast(logits, tf.float32), masks, measures, classes)
        # If a batch has fewer examples than there are replicas, some replicas get a copy of an example, with
        # the share 0. The results for these copies are replaced by 0.
        own = share > 0
        totals = tf.nest.map_structure(lambda total: tf.where(own, total, 0), totals)
        replica = tf.distribute.get_replica_context()
        return *replica.all_reduce(tf.distribute.ReduceOp.SUM, totals), wrong

    @tf.function(autograph=False, reduce_retracing=True)
    def evaluation_step(images, masks, share):
        return distribution.first(strategy.run(replica_step, (images, masks, share)))

    def evaluate(batches):
        totals = dict.fromkeys(["examples", *measures], 0.0)
        confusion, wrong = np.zeros([classes, classes], np.int64), []
        for images, masks, share in batches:
            sums, counts, wrong_pixels = evaluation_step(images, masks, share)
            for name, value in sums.items():
                totals[name] += float(value)
            confusion += counts.numpy().astype(np.int64)
            wrong.append(wrong_pixels.numpy().astype(np.int64))
        means = {name: totals[name] / totals["examples"] for name in measures}
        return means, confusion, np.concatenate(wrong)

    return evaluate


def _results(logits, masks, measures, classes):
    """Return (sums, confusion matrix, wrong pixels) of B examples.

    sums: name -> float64: the sum of each measure over the examples, and "examples", the number of examples.
    confusion matrix: float64 [classes, classes], pixel counts. wrong pixels: float64 [B].

    logits: float32 [B, H, W, C]. masks: class ids [B, H, W]. measures: name -> a function (logits, masks) ->
    [B]. classes: the number of classes.
    """
    measured = {"examples": tf.ones(tf.shape(logits)[:1])}
    measured |= {name: measure(logits, masks) for name, measure in measures.items()}
    sums = {name: tf.reduce_sum(tf.cast(each, tf.float64)) for name, each in measured.items()}
    predicted = metrics.class_ids(logits)
    # The counts become float64, because all_reduce needs the same dtype for counts and sums. float64 stores
    # counts up to 2**53 exactly.
    counts = tf.cast(metrics.confusion_matrix(masks, predicted, classes), tf.float64)
    return sums, counts, tf.reduce_sum(tf.cast(metrics.is_wrong(masks, predicted), tf.float64), axis=[1, 2])


def make_predict(experiment, weights, dtype):
    """Return a compiled function: images [B, H, W, 3] with values 0..255 -> class ids uint8 [B, H, W].

    experiment, weights, dtype: as for `make_evaluate`.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(images):
        with lowering.prediction():
            logits = experiment.forward(weights, tf.cast(images, dtype))
        return metrics.class_ids(logits)

    return predict
