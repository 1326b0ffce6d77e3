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
        loss=np.arange(6.0),
    )
    other = SimpleNamespace(**vars(run))  # the same results in reverse order
    turned = per_image.PerImage(
        **{key: array[::-1] if array.ndim else array for key, array in vars(results).items()}
    )
    found = {id(run): results, id(other): turned}
    monkeypatch.setattr(comparison, "validation_results", lambda each: found[id(each)])
    zero = (0, 0, 0)
    assert comparison.bootstrap(run, other, 10) == ({"loss": zero, "iou": zero}, 6, 2)
    results.files[:] = 7
    with refused("the common validation images come from a single file"):
        comparison.bootstrap(run, other, 10)
