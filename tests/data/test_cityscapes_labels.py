"""Files of the Cityscapes layout are found, and their 34 label ids are read and scored."""

import shutil

import numpy as np
import pytest
from PIL import Image

from core.data import cityscapes_labels, remarks
from core.runtime.errors import InputError

DATASET = cityscapes_labels.dataset(train_size=20, val_size=16)


@pytest.fixture
def streets(tmp_path):
    """Write three photos of two cities, and their masks; return the folder.

    The photos are numbered from 0. The number of a photo is its red value and the label id of its mask.
    """
    for number, (city, name) in enumerate([("ulm", "b"), ("ulm", "a"), ("aachen", "c")]):
        for part, suffix, value in (
            ("leftImg8bit", "leftImg8bit", (number, 0, 0)),
            ("gtFine", "gtFine_labelIds", number),
        ):
            folder = tmp_path / part / "train" / city
            folder.mkdir(parents=True, exist_ok=True)
            mode = "RGB" if isinstance(value, tuple) else "L"
            Image.new(mode, (64, 32), value).save(folder / f"{city}_{name}_{suffix}.png")
    return tmp_path


def test_photos_and_labels_are_matched_by_name(streets):
    found = DATASET.find(streets, "train")
    assert [photo.name[:8].rstrip("_le") for photo, _ in found] == ["aachen_c", "ulm_a", "ulm_b"]
    for files in found:
        photo, ids = DATASET.read(files, "train")
        assert photo.shape == (1, 20, 20, 3) and ids.shape == (1, 20, 20)
        assert photo[0, 0, 0, 0] == ids[0, 0, 0]
    assert DATASET.read(found[0], "val")[0].shape == (1, 16, 16, 3)
    for part in ("leftImg8bit", "gtFine"):
        shutil.copytree(streets / part / "train/ulm", streets / part / "val/ulm")
    assert {path.parts[-3] for files in DATASET.find(streets, "val") for path in files} == {"val"}
    for change in ({"train_size": 24}, {"val_size": 8}, {"white_level": 9}):
        other = cityscapes_labels.dataset(**{"train_size": 20, "val_size": 16, **change})
        assert other.settings != DATASET.settings
    photo, labels = DATASET.find(streets, "val")[0]
    width, height = Image.open(photo).size
    Image.fromarray(np.full((height, width), 500, np.uint16)).save(photo)
    deep = cityscapes_labels.dataset(train_size=20, val_size=16, white_level=2000)
    assert np.unique(deep.read((photo, labels), "train")[0]).tolist() == [64]


def test_labels_without_a_photo_are_counted_and_two_photos_of_a_scene_are_refused(streets):
    photo = streets / "leftImg8bit/train/ulm/ulm_a_leftImg8bit.png"
    content = photo.read_bytes()
    photo.unlink()
    with remarks.collect() as found:
        assert len(DATASET.find(streets, "train")) == 2
    assert "1 files of label ids have no photo" in found[0][1]
    photo.write_bytes(content)
    Image.open(photo).save(photo.with_suffix(".jpg"))
    with pytest.raises(InputError, match="has the same name before the suffix"):
        DATASET.find(streets, "train")


def test_ids_are_resized_by_nearest_neighbour_and_licence_plates_are_unlabeled(streets):
    photo, labels = DATASET.find(streets, "train")[0]
    ids = np.zeros((32, 64), np.uint8)
    ids[::2], ids[1::2, ::2] = 33, 255
    Image.fromarray(ids).save(labels)
    _, read = DATASET.read((photo, labels), "train")
    assert set(np.unique(read)) == {0, 33}


def test_hidden_folders_are_no_cities_and_wrong_names_are_refused(streets):
    photo, _ = DATASET.find(streets, "train")[0]
    (hidden := photo.parent.with_name(".checkpoints")).mkdir()
    Image.new("RGB", (64, 32)).save(hidden / "x.png")  # hidden folders are not cities
    assert len(DATASET.find(streets, "train")) == 3
    photo.rename(photo.with_name("holiday.png"))
    with pytest.raises(InputError, match="holiday.png: not called NAME_leftImg8bit.png"):
        DATASET.find(streets, "train")


def test_photos_of_any_format_and_folders_of_any_letter_case_are_found(streets):
    for folder in ("leftImg8bit", "gtFine"):
        (streets / folder / "train").rename(streets / folder / "Train")
    photo = streets / "leftImg8bit/Train/ulm/ulm_a_leftImg8bit.png"
    Image.open(photo).save(photo.with_suffix(".TIF"))
    photo.unlink()
    found = DATASET.find(streets, "train")
    assert [each.name for each, _ in found] == [
        "aachen_c_leftImg8bit.png",
        "ulm_a_leftImg8bit.TIF",
        "ulm_b_leftImg8bit.png",
    ]


def test_the_official_benchmark_scores_19_classes():
    names = list(np.array(cityscapes_labels.CLASSES)[cityscapes_labels.OFFICIAL])
    assert ", ".join(names) == (
        "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky,"
        " person, rider, car, truck, bus, train, motorcycle, bicycle"
    )
    assert len(cityscapes_labels.CLASSES) == 34 == len(cityscapes_labels.PALETTE)


def test_mean_iou_over_19_ignores_pixels_of_the_other_classes():
    confusion = np.zeros((34, 34), np.int64)
    confusion[7, 7], confusion[7, 8], confusion[8, 8] = 90, 10, 40  # road, pavement
    confusion[7, 9] = 20  # road predicted as parking: the pixels are wrong for both classes
    confusion[0, 7], confusion[9, 8] = 1000, 500  # unlabeled and parking: ignored officially
    figures = cityscapes_labels.scores(confusion)
    assert figures["mean_iou_19"] == pytest.approx((90 / 120 + 40 / 50) / 2)
    assert figures["classes_averaged_19"] == 2
    assert figures["mean_iou"] == pytest.approx((0 + 90 / 1120 + 40 / 550 + 0) / 4)
    assert figures["classes_averaged"] == 4  # 0, 7, 8 and 9
    assert figures["iou/road"] == pytest.approx(90 / 1120)
