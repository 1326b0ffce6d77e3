"""Prediction names each image that cannot be read and segments the others."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import assert_one_sentence, refused, road_flags
from damage import DAMAGED_IMAGES, HUGE_IMAGES, NOT_FILES
from PIL import Image

from core.inference import photos, predict
from experiments import cityscape_road

pytestmark = pytest.mark.usefixtures("limits")
PIXELS = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)


def test_each_unreadable_image_is_named_and_the_others_are_segmented(tmp_path, capsys):
    def forward(weights, images, **options):
        dtypes.append(images.dtype)
        return images[..., :1] - 127  # predicts class 1 where red is above 127

    dtypes = []

    experiment = dataclasses.replace(cityscape_road.experiment(road_flags(tmp_path)), forward=forward)
    bad = [tmp_path / "missing.png"]
    for number, damage in enumerate((HUGE_IMAGES | DAMAGED_IMAGES).values()):
        bad.append(tmp_path / f"bad{number}.png")
        Image.fromarray(PIXELS).save(bad[-1])
        damage(bad[-1])
    pixels = [np.roll(PIXELS, number, axis=0) for number in range(10)]
    good = [tmp_path / f"good{number}.png" for number in range(10)]
    for path, each in zip(good, pixels):
        Image.fromarray(each).save(path)
    paths = [*good[:5], *bad, *good[5:]]
    options = predict.Options(tile=64)  # four images per batch
    code = predict.run(experiment, {}, tf.bfloat16, photos.find(paths), tmp_path / "out", options)
    assert code == 1 and tf.bfloat16 in dtypes
    reasons = dict(line.split(": ", 2)[1:] for line in capsys.readouterr().err.splitlines())
    assert reasons.keys() == {str(path) for path in bad}
    for path, reason in reasons.items():
        assert_one_sentence(f"{path}: {reason}", path)
    assert len(list((tmp_path / "out").glob("*_labels.png"))) == 10
    for path, each in zip(good, pixels):
        labels = Image.open(tmp_path / "out" / f"{path.stem}_labels.png")
        np.testing.assert_array_equal(labels, each[..., 0] > 127)


@pytest.mark.parametrize("damage", NOT_FILES.values(), ids=NOT_FILES)
def test_an_image_name_that_is_not_a_file_is_refused(tmp_path, damage):
    (tmp_path / "1.png").touch()
    damage(tmp_path / "1.png")
    with refused(tmp_path / "1.png"):
        photos.find([tmp_path])
