"""Compute losses, measures and the confusion matrix of a network over a whole split."""

import numpy as np
import tensorflow as tf

from core import metrics
from core.runtime import distribution


def make_evaluate(experiment, weights, dtype):
    """Return a function: batches -> (means, confusion matrix int64 [classes, classes]).

    batches: from `core.data.batches.evaluation`. means: name -> mean over the examples, for the loss
    and the experiment's measures. Each example has the same weight whatever the batch sizes, but a
    measure such as Dubai's `soft_jaccard` is itself computed over a batch. Results are summed over all
    replicas. The function is compiled once and reads the variables' current values in each call.
    """
    classes = len(experiment.classes)
    measures = {"loss": experiment.loss, **experiment.measures}
    strategy = tf.distribute.get_strategy()

    def replica_step(images, masks, share):
        logits = experiment.forward(weights, tf.cast(images, dtype), training=False)
        logits = tf.cast(logits, tf.float32)
        measured = {"examples": tf.ones(tf.shape(images)[:1])}
        measured |= {name: measure(logits, masks) for name, measure in measures.items()}
        counts = metrics.confusion_matrix(masks, metrics.class_ids(logits), classes)
        own = share > 0  # with share 0, the examples are copies from another replica
        sums = {name: tf.reduce_sum(tf.cast(each, tf.float64)) for name, each in measured.items()}
        # float64 because all_reduce needs one dtype; counts are exact up to 2**53
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
    """Return a compiled function: images [B, H, W, 3] with values 0..255 -> class ids uint8 [B, H, W]."""

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(images):
        return metrics.class_ids(experiment.forward(weights, tf.cast(images, dtype)))

    return predict
