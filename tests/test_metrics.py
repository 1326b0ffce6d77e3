"""Metrics and losses against NumPy, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from core import losses, metrics

CONFUSION = np.array([[50, 3, 0, 0], [2, 20, 5, 0], [0, 1, 10, 0], [0, 0, 0, 0]])  # class 3: absent


def test_confusion_matrix_counts_truth_in_rows():
    truth = np.random.RandomState(0).randint(0, 3, (2, 5, 7)).astype(np.uint8)
    prediction = np.random.RandomState(1).randint(0, 3, (2, 5, 7)).astype(np.uint8)
    expected = [[((truth == t) & (prediction == p)).sum() for p in range(4)] for t in range(4)]
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, prediction, 4), expected)


def test_class_ids_of_one_logit_and_of_many():
    one = tf.constant([[[[-0.1], [0.1], [0.0]]]])
    np.testing.assert_array_equal(metrics.class_ids(one), [[[0, 1, 0]]])
    many = tf.constant([[[[3.0, 1.0, 2.0], [0.0, 5.0, 9.0]]]])
    np.testing.assert_array_equal(metrics.class_ids(many), [[[0, 2]]])


def test_figures_by_hand():
    np.testing.assert_allclose(metrics.iou(CONFUSION), [50 / 55, 20 / 31, 10 / 16, np.nan])
    np.testing.assert_allclose(metrics.precision(CONFUSION), [50 / 52, 20 / 24, 10 / 15, np.nan])
    np.testing.assert_allclose(metrics.recall(CONFUSION), [50 / 53, 20 / 27, 10 / 11, np.nan])
    assert metrics.accuracy(CONFUSION) == 80 / 91


def test_iou_is_not_dice():
    assert metrics.iou(np.array([[6, 1], [1, 2]]))[1] == 2 / 4  # Dice would be 4 / 6


def test_binary_figures_are_of_class_one():
    figures = metrics.binary(np.array([[6, 1], [3, 2]]))
    assert figures == {"iou": 2 / 6, "accuracy": 8 / 12, "precision": 2 / 3, "recall": 2 / 5}


def test_a_class_in_neither_truth_nor_prediction_counts_for_nothing():
    figures = metrics.multiclass(("a", "b", "c", "d"))(CONFUSION)
    assert figures["mean_iou"] == pytest.approx((50 / 55 + 20 / 31 + 10 / 16) / 3)
    assert figures["classes_averaged"] == 3 and np.isnan(figures["iou/d"])


def test_binary_cross_entropy_by_hand():
    logits = np.random.RandomState(0).normal(0, 3, (3, 4, 5, 1)).astype(np.float32)
    masks = np.random.RandomState(1).randint(0, 2, (3, 4, 5)).astype(np.uint8)
    p = 1 / (1 + np.exp(-logits[..., 0].astype(np.float64)))
    expected = -np.where(masks, np.log(p), np.log(1 - p)).mean(axis=(1, 2))
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, masks), expected, rtol=1e-5)


def test_categorical_cross_entropy_by_hand():
    logits = np.random.RandomState(0).normal(0, 3, (3, 4, 5, 6)).astype(np.float32)
    masks = np.random.RandomState(1).randint(0, 6, (3, 4, 5)).astype(np.uint8)
    p = np.exp(logits.astype(np.float64))
    p = np.take_along_axis(p / p.sum(-1, keepdims=True), masks[..., None].astype(int), -1)
    expected = -np.log(p[..., 0]).mean(axis=(1, 2))
    np.testing.assert_allclose(losses.categorical_cross_entropy(logits, masks), expected, rtol=1e-5)


def test_losses_stay_finite_at_absurd_logits():
    logits = tf.constant([[[[1e4], [-1e4]]]])
    assert losses.binary_cross_entropy(logits, [[[0, 1]]]).numpy() == pytest.approx([1e4])
    logits = tf.constant([[[[1e4, -1e4]]]])
    assert losses.categorical_cross_entropy(logits, [[[1]]]).numpy() == pytest.approx([2e4])


@pytest.mark.parametrize("classes", [1, 3])
def test_the_dice_loss_by_hand(classes):
    rng = np.random.RandomState(0)
    logits = rng.randn(2, 4, 5, classes).astype(np.float32)
    masks = rng.randint(0, max(classes, 2), (2, 4, 5)).astype(np.uint8)
    expected = []
    for logit, mask in zip(logits.astype(float), masks):
        if classes == 1:
            share, truth = 1 / (1 + np.exp(-logit[..., 0])), mask == 1
            hit, both = share[truth].sum(), share.sum() + truth.sum()
        else:
            share = np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)
            hit, both = np.take_along_axis(share, mask[..., None], -1).sum(), 2 * mask.size
        expected.append(1 - (2 * hit + 1) / (both + 1))
    np.testing.assert_allclose(losses.dice(logits, masks), expected, rtol=1e-5)
