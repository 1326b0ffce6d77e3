"""Compute the loss, the confusion matrix and other metrics of a network over a whole split."""

import numpy as np
import tensorflow as tf

from core import metrics
from core.runtime import distribution


def make_evaluate(experiment, weights, dtype):
    """Return a function that evaluates the network: batches -> (means, confusion matrix).

    batches: an iterable of batches as from `core.data.batches.evaluation`.
    means: a dict, name -> float: the means of the loss and of the experiment's `measures`.
    confusion matrix: int64 [classes, classes]: pixel counts, with one row per true class.
    Each mean is over all examples, and each example has the same weight even if the last batch is
    smaller. However, some measures give all examples of a batch one common value, such as Dubai's
    `soft_jaccard`. Their means depend on the batch size.
    The results include the examples of all replicas. The network is compiled once, and each call uses
    the current values of the variables in `weights`. dtype: the dtype of the activations.
    """
    classes = len(experiment.classes)
    measures = {"loss": experiment.loss, **experiment.measures}
    strategy = tf.distribute.get_strategy()

    def replica_step(images, masks, share):
        """Return (sums of the loss and the measures, confusion matrix) of a batch over all replicas."""
        logits = experiment.forward(weights, tf.cast(images, dtype), training=False)
        logits = tf.cast(logits, tf.float32)
        measured = {"examples": tf.ones(tf.shape(images)[:1])}
        measured |= {name: measure(logits, masks) for name, measure in measures.items()}
        counts = metrics.confusion_matrix(masks, metrics.class_ids(logits), classes)
        own = share > 0  # share is 0 if these examples are copies of another replica's examples
        sums = {name: tf.reduce_sum(tf.cast(each, tf.float64)) for name, each in measured.items()}
        # The counts become float64 because all_reduce needs one dtype; they stay exact up to 2**53.
        results = sums, tf.cast(counts, tf.float64)
        results = tf.nest.map_structure(lambda total: tf.where(own, total, 0), results)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, results)

    @tf.function(autograph=False, reduce_retracing=True)
    def evaluation_step(images, masks, share):
        return distribution.first(strategy.run(replica_step, (images, masks, share)))

    def evaluate(batches):
        totals = dict.fromkeys(["examples", *measures], 0.0)
        confusion = np.zeros([classes, classes], np.int64)
        for images, masks, share in batches:
            sums, counts = evaluation_step(images, masks, share)
            for name, value in sums.items():
                totals[name] += float(value)
            confusion += counts.numpy().astype(np.int64)
        return {name: totals[name] / totals["examples"] for name in measures}, confusion

    return evaluate


def make_predict(experiment, weights, dtype):
    """Return a compiled function: images [B, H, W, 3] with values 0..255 -> class ids uint8 [B, H, W].

    dtype: the dtype of the activations.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(images):
        return metrics.class_ids(experiment.forward(weights, tf.cast(images, dtype)))

    return predict
