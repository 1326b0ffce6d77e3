"""Metrics and losses against NumPy and against values computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from core import losses, metrics
from core.data import cityscapes_labels
from core.runtime.errors import InputError

CONFUSION = np.array([[50, 3, 0, 0], [2, 20, 5, 0], [0, 1, 10, 0], [0, 0, 0, 0]])  # class 3 is absent


def test_confusion_matrix_counts_truth_in_rows():
    truth = np.random.RandomState(0).randint(0, 3, (2, 5, 7)).astype(np.uint8)
    prediction = np.random.RandomState(1).randint(0, 3, (2, 5, 7)).astype(np.uint8)
    expected = [[((truth == t) & (prediction == p)).sum() for p in range(4)] for t in range(4)]
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, prediction, 4), expected)


def test_class_ids_of_one_logit_and_of_several():
    one = tf.constant([[[[-0.1], [0.1], [0.0]]]])
    np.testing.assert_array_equal(metrics.class_ids(one), [[[0, 1, 0]]])
    many = tf.constant([[[[3.0, 1.0, 2.0], [0.0, 5.0, 9.0]]]])
    np.testing.assert_array_equal(metrics.class_ids(many), [[[0, 2]]])


def test_ignored_pixels_are_left_out_of_the_confusion_matrix():
    truth, prediction = np.array([[[0, 1, 255, 2, 255]]], np.uint8), np.array([[[0, 2, 1, 2, 2]]], np.uint8)
    expected = np.zeros([3, 3], int)
    expected[0, 0] = expected[1, 2] = expected[2, 2] = 1
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, prediction, 3), expected)
    many = metrics.confusion_matrix(np.array([254, 255], np.uint8), np.array([254, 254], np.uint8), 255)
    assert many.numpy().sum() == many[254, 254] == 1


def test_a_metric_for_another_number_of_classes_is_refused():
    with pytest.raises(InputError, match="two classes, but there are 4; use metrics.multiclass"):
        metrics.binary(CONFUSION)
    with pytest.raises(InputError, match="3 names for 4 classes"):
        metrics.multiclass(("a", "b", "c"))(CONFUSION)


def test_class_metrics_equal_hand_computed_values():
    np.testing.assert_allclose(metrics.iou(CONFUSION), [50 / 55, 20 / 31, 10 / 16, np.nan])
    np.testing.assert_allclose(metrics.precision(CONFUSION), [50 / 52, 20 / 24, 10 / 15, np.nan])
    np.testing.assert_allclose(metrics.recall(CONFUSION), [50 / 53, 20 / 27, 10 / 11, np.nan])
    assert metrics.accuracy(CONFUSION) == 80 / 91


def test_binary_metrics_describe_class_1():
    found = metrics.binary(np.array([[6, 1], [3, 2]]))
    assert found == {"iou": 2 / 6, "accuracy": 8 / 12, "precision": 2 / 3, "recall": 2 / 5}


def test_a_class_in_neither_truth_nor_prediction_is_excluded_from_the_mean():
    found = metrics.multiclass(("a", "b", "c", "d"))(CONFUSION)
    assert found["mean_iou"] == pytest.approx((50 / 55 + 20 / 31 + 10 / 16) / 3)
    assert found["classes_averaged"] == 3 and np.isnan(found["iou/d"])


@pytest.mark.filterwarnings("error")
def test_a_mean_over_no_classes_is_nan_without_a_warning():
    assert np.isnan(metrics.multiclass(("a", "b"))(np.zeros([2, 2], np.int64))["mean_iou"])
    only_unscored = np.zeros([34, 34], np.int64)
    only_unscored[0, 0] = 5
    found = cityscapes_labels.scores(only_unscored)
    assert np.isnan(found["mean_iou_19"]) and found["classes_averaged_19"] == 0 and found["mean_iou"] == 1


def test_losses_stay_finite_at_very_large_logits():
    logits = tf.constant([[[[1e4], [-1e4]]]])
    assert losses.binary_cross_entropy(logits, [[[0, 1]]]).numpy() == pytest.approx([1e4])
    logits = tf.constant([[[[1e4, -1e4]]]])
    assert losses.categorical_cross_entropy(logits, [[[1]]]).numpy() == pytest.approx([2e4])


@pytest.mark.parametrize("classes", [1, 3])
def test_dice_loss_equals_hand_computed_values(classes):
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


def ignored_example(classes):
    """Return logits, masks and class weights of four examples.

    In the masks, about 30 % of the pixels of the first three examples, and all pixels of the last example,
    have the value 255 and are ignored.
    """
    rng = np.random.RandomState(0)
    logits = rng.normal(0, 3, (4, 6, 5, classes)).astype(np.float32)
    masks = rng.randint(0, max(classes, 2), (4, 6, 5)).astype(np.uint8)
    masks[rng.uniform(size=masks.shape) < 0.3] = 255
    masks[3] = 255
    return logits, masks, rng.uniform(0.5, 3, max(classes, 2)).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [1, 4])
def test_cross_entropy_with_ignored_pixels_and_class_weights_equals_hand_computed_values(classes, weighted):
    logits, masks, class_weights = ignored_example(classes)
    scores = logits.astype(np.float64)
    if classes == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=-1)
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    expected = []
    for each, mask in zip(log_p, masks):
        pixels = [
            (each[at][mask[at]], class_weights[mask[at]]) for at in np.ndindex(mask.shape) if mask[at] != 255
        ]
        losses_of_pixels = [-value * (weight if weighted else 1) for value, weight in pixels]
        expected.append(np.mean(losses_of_pixels) if pixels else 0)
    loss = losses.binary_cross_entropy if classes == 1 else losses.categorical_cross_entropy
    found = loss(logits, masks, class_weights=class_weights if weighted else None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("classes", [1, 4])
def test_ignored_pixels_have_no_gradient_and_the_loss_equals_keras(classes):
    logits, masks, _ = ignored_example(classes)
    logits = tf.constant(logits)
    loss = losses.binary_cross_entropy if classes == 1 else losses.categorical_cross_entropy
    keras = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    both = logits if classes > 1 else tf.concat([tf.zeros_like(logits), logits], axis=-1)
    expected = [float(keras(masks[index], both[index])) for index in range(3)]
    np.testing.assert_allclose(loss(logits, masks)[:3], expected, rtol=1e-5)
    for function in (loss, losses.dice):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(function(logits, masks))
        gradient = tape.gradient(total, logits).numpy()
        assert (gradient[masks == 255] == 0).all() and (gradient[masks != 255] != 0).all()


def test_dice_loss_does_not_depend_on_ignored_pixels():
    for classes in (1, 4):
        logits, masks, _ = ignored_example(classes)
        other = np.where((masks == 255)[..., None], -logits, logits)
        np.testing.assert_array_equal(losses.dice(logits, masks), losses.dice(other, masks))
        row = masks[:1, :1] != 255
        alone = losses.dice(logits[:1, :1][:, :, row[0, 0]], masks[:1, :1][:, :, row[0, 0]])
        np.testing.assert_allclose(losses.dice(logits[:1, :1], masks[:1, :1]), alone, rtol=1e-6)


def test_balanced_class_weights_are_inverse_to_pixels():
    np.testing.assert_allclose(
        losses.balanced_class_weights([60, 30, 10, 0]), [100 / 180, 100 / 90, 100 / 30, 1]
    )


def test_a_loss_that_does_not_fit_the_logits_is_refused():
    masks = np.zeros([1, 2, 2], np.uint8)
    with pytest.raises(InputError, match="3 logits per pixel"):
        losses.binary_cross_entropy(tf.zeros([1, 2, 2, 3]), masks)
    with pytest.raises(InputError, match="one logit per pixel"):
        losses.categorical_cross_entropy(tf.zeros([1, 2, 2, 1]), masks)
