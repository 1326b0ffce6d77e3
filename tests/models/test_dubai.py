"""The soft metrics of the aerial article against NumPy."""

import functools

import numpy as np
import tensorflow as tf

from experiments import dubai_aerial as article


def test_soft_metrics_follow_the_articles_formulas():
    rng = np.random.RandomState(0)
    logits, masks = rng.normal(size=(3, 4, 5, 6)).astype(np.float32), rng.randint(0, 6, (3, 4, 5))
    prediction = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    truth = np.eye(6)[masks]

    def index(t, p):
        return ((t * p).sum() + 1) / (t.sum() + p.sum() - (t * p).sum() + 1)

    for graph in (lambda function: function, functools.partial(tf.function, autograph=False)):
        jaccard = graph(article.soft_jaccard)(logits, masks)
        np.testing.assert_allclose(jaccard, np.full(3, index(truth, prediction)), rtol=1e-5)
        each = [index(t, p) for t, p in zip(truth, prediction)]
        np.testing.assert_allclose(graph(article.soft_iou)(logits, masks), each, rtol=1e-5)
