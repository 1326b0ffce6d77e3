"""Figures of a network over a whole split, each example counted once."""

import numpy as np
import tensorflow as tf

from core import metrics


def make_evaluate(experiment, weights, dtype):
    """A function (batches of images and masks) -> (means, confusion int64 [classes, classes]).

    means: the loss and the experiment's measures, name -> mean over the examples,
    whatever the sizes of the batches. Compiled once: it sees the weights' values of the moment it is called.
    """
    classes = len(experiment.classes)
    measures = {"loss": experiment.loss, **experiment.measures}

    @tf.function(reduce_retracing=True)
    def evaluation_step(images, masks):
        logits = experiment.forward(weights, tf.cast(images, dtype), training=False)
        logits = tf.cast(logits, tf.float32)
        measured = {name: measure(logits, masks) for name, measure in measures.items()}
        return measured, metrics.confusion_matrix(masks, metrics.class_ids(logits), classes)

    def evaluate(batches):
        examples, sums = 0, dict.fromkeys(measures, 0.0)
        confusion = np.zeros([classes, classes], np.int64)
        for images, masks in batches:
            measured, counts = evaluation_step(images, masks)
            examples += len(images)
            for name, values in measured.items():
                sums[name] += values.numpy().sum(dtype=np.float64)
            confusion += counts.numpy()
        return {name: total / examples for name, total in sums.items()}, confusion

    return evaluate


def make_predict(experiment, weights, dtype):
    """A function (images [B, H, W, 3] 0..255) -> class ids uint8 [B, H, W]."""

    @tf.function(reduce_retracing=True)
    def predict(images):
        return metrics.class_ids(experiment.forward(weights, tf.cast(images, dtype)))

    return predict
