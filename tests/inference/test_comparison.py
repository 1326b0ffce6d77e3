"""The bootstrap refuses runs whose results give no interval."""

from types import SimpleNamespace

import numpy as np
from conftest import refused

from core import losses, metrics
from core.inference import comparison, per_image


def test_common_images_of_a_single_file_are_refused(monkeypatch):
    """Patches of one photo are one cluster. All resampled sets would be equal."""
    run = SimpleNamespace(
        code={},
        experiment=SimpleNamespace(
            name="road",
            classes=("a", "b"),
            loss=losses.categorical_cross_entropy,
            metrics=lambda confusion: {"iou": metrics.iou(confusion)[1]},
        ),
    )
    results = per_image.PerImage(
        epoch=np.array(1),
        hashes=np.arange(6),
        files=np.array([7, 7, 7, 8, 8, 8]),
        confusion=np.random.RandomState(0).randint(1, 9, (6, 2, 2)),
        loss=np.ones(6),
    )
    monkeypatch.setattr(comparison, "validation_results", lambda _: results)
    assert comparison.bootstrap(run, run, 10)[1:] == (6, 2)
    results.files[:] = 7
    with refused("the common validation images come from a single file"):
        comparison.bootstrap(run, run, 10)
