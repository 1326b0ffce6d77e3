"""Generated street scenes are reproducible, and the colour of a pixel does not tell its class."""

import hashlib

import numpy as np

from core import metrics
from core.data.synthetic import street_scenes


def test_a_scene_is_a_function_of_its_seed():
    photo, labels = street_scenes.scene((0, 3))
    assert photo.shape == (256, 256, 3) and photo.dtype == labels.dtype == np.uint8
    again = street_scenes.scene((0, 3))
    np.testing.assert_array_equal(photo, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert not np.array_equal(labels, street_scenes.scene((0, 4))[1])
    # labels are drawn with integer coordinates, so they are equal on every machine
    assert hashlib.sha256(labels.tobytes()).hexdigest()[:16] == "c4ebdd72f649f1e6"


def test_scenes_contain_every_class_and_enough_road():
    labels = np.stack([street_scenes.scene((1, index))[1] for index in range(20)])
    assert set(np.unique(labels)) == set(street_scenes.COLOURS)
    share = (labels == street_scenes.ROAD).mean(axis=(1, 2))
    assert 0.15 < share.mean() < 0.4 and share.min() > 0.02


def test_a_classifier_that_sees_only_the_colour_of_a_pixel_fails():
    """At the best threshold, logistic regression on the RGB values of a pixel has a road IoU below 0.75."""
    photos, labels = zip(*(street_scenes.scene((2, index)) for index in range(30)))
    x = np.stack(photos)[:, ::4, ::4].reshape(-1, 3) / 255
    x = np.concatenate([x, np.ones([len(x), 1])], axis=1)
    y = (np.stack(labels)[:, ::4, ::4] == street_scenes.ROAD).reshape(-1)
    w = np.zeros(4)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    best = 0
    for threshold in np.linspace(0.1, 0.9, 17):  # the best of these thresholds counts
        road = p > threshold
        confusion = np.array([[(~y & ~road).sum(), (~y & road).sum()], [(y & ~road).sum(), (y & road).sum()]])
        best = max(best, metrics.iou(confusion)[1])
    assert 0.2 < best < 0.75
