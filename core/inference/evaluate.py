"""Figures of a network over a whole split, each example counted once."""

import numpy as np
import tensorflow as tf

from core import metrics
from core.runtime import distribution


def make_evaluate(experiment, weights, dtype):
    """A function (batches) -> (means, confusion int64 [classes, classes]).

    batches: as those of `core.data.batches`. means: the loss and the experiment's
    measures, name -> mean over the examples, whatever the sizes of the batches (but
    for a measure that looks beyond its example, as Dubai's `soft_jaccard` does);
    summed over the replicas, if there are several. Compiled once: it sees the
    weights' values of the moment it is called.
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
        own = share > 0  # else these examples are another replica's
        sums = {name: tf.reduce_sum(tf.cast(each, tf.float64)) for name, each in measured.items()}
        results = sums, tf.cast(counts, tf.float64)  # of one dtype, to be reduced; exact to 2**53
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
    """A function (images [B, H, W, 3] 0..255) -> class ids uint8 [B, H, W]."""

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(images):
        return metrics.class_ids(experiment.forward(weights, tf.cast(images, dtype)))

    return predict
