"""Confidence intervals, against plain NumPy computations on pixels and against simulated differences."""

import tracemalloc

import numpy as np
import pytest

from core import metrics
from core.inference import uncertainty


def road_iou(truths, predictions):
    """Return the IoU of class 1 over all label maps, computed by counting pixels."""
    hit, either = 0, 0
    for truth, prediction in zip(truths, predictions):
        hit += np.sum((truth == 1) & (prediction == 1))
        either += np.sum((truth == 1) | (prediction == 1))
    return hit / either


@pytest.mark.parametrize("patches", [1, 3], ids=["images", "three patches of each photo"])
def test_the_paired_bootstrap_equals_resampling_label_maps_one_by_one(patches):
    rng = np.random.default_rng(1)
    photos, count, resamples = 12, 12 * patches, 200
    truths = rng.integers(0, 2, (count, 5, 7))
    flips = [rng.random(truths.shape) < share for share in (0.3, 0.2)]
    networks = [np.where(flip, 1 - truths, truths) for flip in flips]
    clusters = np.repeat(np.arange(photos), patches)
    sums = [
        np.array([metrics.confusion_matrix(*pair, 2).numpy().ravel() for pair in zip(truths, predictions)])
        for predictions in networks
    ]
    found = uncertainty.paired_bootstrap(
        lambda sums: {"iou": metrics.iou(sums.reshape(2, 2))[1]}, *sums, clusters, resamples=resamples, seed=5
    )
    differences = []
    draws = np.random.default_rng(5).multinomial(photos, [1 / photos] * photos, size=resamples)
    for times in draws:
        drawn = np.repeat(np.arange(photos), times)
        rows = [row for photo in drawn for row in np.flatnonzero(clusters == photo)]
        ious = [road_iou(truths[rows], predictions[rows]) for predictions in networks]
        differences.append(ious[1] - ious[0])
    expected = road_iou(truths, networks[1]) - road_iou(truths, networks[0])
    interval = np.quantile(differences, [0.025, 0.975])
    np.testing.assert_allclose(found["iou"], [expected, *interval], atol=1e-12)


def test_the_bootstrap_of_a_mean_has_the_width_of_the_normal_interval():
    a, b = np.random.default_rng(0).normal([0, 0.1], [1, 1], (400, 2)).T[..., None]
    found = uncertainty.paired_bootstrap(lambda sums: {"mean": sums[0] / 400}, a, b, np.arange(400))
    _, low, high = found["mean"]
    margin = 1.96 * (b - a).std() / 400**0.5
    assert low == pytest.approx((b - a).mean() - margin, abs=0.1 * margin)
    assert high == pytest.approx((b - a).mean() + margin, abs=0.1 * margin)


def test_the_memory_of_the_bootstrap_grows_linearly_with_the_number_of_clusters():
    a, b = np.random.default_rng(0).random((2, 4000, 3))
    tracemalloc.start()
    uncertainty.paired_bootstrap(lambda sums: {"sum": sums[0]}, a, b, np.arange(4000), resamples=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # a matrix [clusters, images] has 128e6 bytes


def test_welch_intervals_contain_the_true_difference_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        _, low, high = uncertainty.welch(rng.normal(0, 1, 3), rng.normal(0.5, 2, 5))
        hits += low <= 0.5 <= high
    assert 0.93 < hits / 500 < 0.98


@pytest.mark.parametrize(
    "a, b, low, high",
    [
        ([0.80, 0.82], [0.90, 0.921], 0.038, 0.163),  # 1.995 degrees of freedom, quantile 4.313
        ([1, 2, 3], [2, 3, 4], -1.267, 3.267),  # 4 degrees of freedom, quantile 2.776
        ([0, 2], [1, 1 + 1e-9], -12.706, 12.706),  # 1 degree of freedom
        (np.tile([-1, 1], 500), np.tile([-1, 1], 500), -0.0877, 0.0877),  # 1998 degrees, quantile 1.961
    ],
)
def test_welch_intervals_with_few_and_many_degrees_of_freedom(a, b, low, high):
    assert uncertainty.welch(a, b)[1:] == pytest.approx((low, high), rel=0.01)
