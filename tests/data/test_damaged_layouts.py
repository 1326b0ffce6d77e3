"""Data set folders with missing, damaged, misplaced or wrong files are refused; the file is named."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_sentence, refused, write_pair
from damage import (
    NOT_FILES,
    cut,
    delete,
    overwrite,
    replace_by,
)
from PIL import Image

from core.data import cache, cityscapes_labels, cityscapes_pairs, dubai_aerial, oxford_pets

pytestmark = pytest.mark.usefixtures("limits")
SIDE = 32
# 1, 2 and 3, which are valid in every data set
CLASS_IDS = 1 + np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE) % 3


DATASETS = {
    "pairs": cityscapes_pairs.road_dataset(size=16, road_rgb=(128, 64, 128), road_tolerance=30),
    "pets": oxford_pets.dataset(size=16),
    "labels": cityscapes_labels.dataset(train_size=16, val_size=16),
    "dubai": dubai_aerial.dataset(patch_size=16, split_by="patch", split_seed=0),
}
PHOTOS = {  # the photo of the second training example in each data set
    "pairs": "train/2.jpg",
    "pets": "images/train_2.jpg",
    "labels": "leftImg8bit/train/ulm/2_leftImg8bit.png",
    "dubai": "Tile 1/images/2.jpg",
}
MASKS = {  # the mask of this photo; a file of pairs holds both
    "pets": "annotations/trimaps/train_2.png",
    "labels": "gtFine/train/ulm/2_gtFine_labelIds.png",
    "dubai": "Tile 1/masks/2.png",
}
every_file = pytest.mark.parametrize("name, file", [*PHOTOS.items(), *MASKS.items()])


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Write undamaged data sets with two examples per split.

    Return a dict: key of DATASETS -> (folder of the data set, checksum of its training examples).
    """
    folder = tmp_path_factory.mktemp("originals")
    colours = np.array(dubai_aerial.PALETTE, np.uint8)[CLASS_IDS]
    for split in ("train", "val"):
        (folder / "pairs" / split).mkdir(parents=True)
        names = [f"{split}_{number}" for number in (1, 2)]
        for number, name in enumerate(names, 1):
            photo = np.random.RandomState(number).randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            write_pair(folder / "pairs" / split / f"{number}.jpg", seed=number)
            write(folder / "pets/images" / f"{name}.jpg", photo)
            write(folder / "pets/annotations/trimaps" / f"{name}.png", CLASS_IDS)
            write(folder / f"labels/leftImg8bit/{split}/ulm/{number}_leftImg8bit.png", photo)
            write(folder / f"labels/gtFine/{split}/ulm/{number}_gtFine_labelIds.png", CLASS_IDS)
            write(folder / f"dubai/Tile 1/images/{number}.jpg", photo)
            write(folder / f"dubai/Tile 1/masks/{number}.png", colours)
        lines = "".join(f"{name} 1 1 1\n" for name in names)
        (folder / "pets/annotations" / oxford_pets.LISTS[split]).write_text(lines)
    return {name: (folder / name, prepare(name, folder / name).checksum) for name in DATASETS}


@pytest.fixture
def copied(originals, tmp_path):
    """Return a function (name) that copies the undamaged data set of this name and returns the new folder."""
    return lambda name: Path(shutil.copytree(originals[name][0], tmp_path / name))


def prepare(name, folder):
    return cache.prepare(DATASETS[name], folder, "train", folder.parent / "cache")


UNREADABLE = NOT_FILES | {"its first half": cut(0, 0.5)}


@every_file
@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_named(copied, name, file, damage):
    folder = copied(name)
    damage(folder / file)
    with refused(folder / file):
        prepare(name, folder)


@every_file
@pytest.mark.parametrize("width, height", [(1, 1), (SIDE + 1, SIDE)])
def test_a_photo_and_a_mask_of_different_sizes_are_refused(copied, name, file, width, height):
    folder = copied(name)
    with Image.open(folder / file) as image:
        image.resize((width, height), Image.Resampling.NEAREST).save(folder / file)
    with refused(folder / (MASKS.get(name, file))):
        prepare(name, folder)


@every_file
def test_files_of_other_programs_are_ignored(originals, copied, name, file):
    folder = copied(name)
    for other in (".hidden.jpg", "._1.jpg", "._1.png", "Thumbs.db", "notes.txt", "no suffix"):
        (folder / file).with_name(other).write_bytes(b"no image")
    assert prepare(name, folder).checksum == originals[name][1]


@pytest.mark.parametrize("name, class_id", [("pets", 0), ("pets", 4), ("pets", 255), ("labels", 34)])
def test_class_ids_out_of_range_are_refused(copied, name, class_id):
    folder = copied(name)
    write(folder / MASKS[name], np.where(CLASS_IDS == 3, class_id, CLASS_IDS).astype(np.uint8))
    with refused(folder / MASKS[name]):
        prepare(name, folder)


def test_trimaps_without_a_pet_are_refused(copied):
    folder = copied("pets")
    for number in (1, 2):
        write(folder / f"annotations/trimaps/train_{number}.png", np.maximum(CLASS_IDS, 2))
    examples = prepare("pets", folder)
    with refused(folder / "annotations/trimaps"):
        DATASETS["pets"].check(examples.class_pixels, examples.files)


def dead_link(path):
    path.symlink_to("nowhere")


def inside(path, damage):
    """Return a function (folder) that applies `damage` to the file or folder at folder / path."""
    return lambda folder: damage(folder / path)


an_empty_folder, an_empty_file = replace_by(Path.mkdir), replace_by(Path.touch)
LIST = "annotations/trainval.txt"
FOLDERS = {  # (data set, fault): the function that damages it, and the path that the message must name
    ("pairs", "an empty folder"): (an_empty_folder, ""),
    ("pairs", "a file"): (an_empty_file, ""),
    ("pairs", "no val"): (inside("val", delete), ""),
    ("pairs", "train is a file"): (inside("train", an_empty_file), ""),
    ("pairs", "train is empty"): (inside("train", an_empty_folder), "train"),
    ("pets", "an empty folder"): (an_empty_folder, LIST),
    ("pets", "no images folder"): (inside("images", delete), "images/train_1.jpg"),
    ("labels", "an empty folder"): (an_empty_folder, "leftImg8bit/train"),
    ("labels", "no gtFine folder"): (inside("gtFine", delete), "gtFine/train/ulm/1_gtFine_labelIds.png"),
    ("labels", "an empty city"): (inside("leftImg8bit/train/ulm", an_empty_folder), "leftImg8bit/train"),
    ("labels", "a city is a dead link"): (inside("leftImg8bit/train/x", dead_link), "leftImg8bit/train/x"),
    ("dubai", "an empty folder"): (an_empty_folder, ""),
    ("dubai", "no images folder"): (inside("Tile 1/images", delete), "Tile 1/images"),
    ("dubai", "no masks folder"): (inside("Tile 1/masks", delete), "Tile 1/masks"),
    ("dubai", "a tile is a file"): (inside("Tile 2", Path.touch), "Tile 2/masks"),
    ("dubai", "a tile is a dead link"): (inside("Tile 2", dead_link), "Tile 2/masks"),
}


@pytest.mark.parametrize(
    "name, damage, named",
    [pytest.param(name, *case, id=f"{name}: {fault}") for (name, fault), case in FOLDERS.items()],
)
def test_a_folder_with_missing_parts_is_refused(copied, name, damage, named):
    folder = copied(name)
    damage(folder)
    with refused(folder / named):
        prepare(name, folder)


BAD_LISTS = NOT_FILES | {
    "empty": overwrite(b""),
    "comments": overwrite(b"# one\n#two\r\n"),
    "Latin 1": overwrite("train_1\nk\xe4tzchen\n".encode("latin-1")),
    "a relative path": overwrite(b"../images/train_1 1 1 1\n"),
    "a Windows path": overwrite(b"..\\images\\train_1 1 1 1\n"),
}
NAMES_OF_NO_PHOTO = {"dots": "..", "unknown": "train_3", "zero byte": "train\0_2", "5000 letters": "x" * 5000}
VALID_LISTS = {
    "CRLF and blank lines": b"\r\n\r\ntrain_1 1 1 1\r\n   \r\ntrain_2 1 1 1\r\n\r\n",
    "names alone and no final line end": b"train_1\ntrain_2",
    "comments, tabs and spaces": b"# head\ntrain_1\t1\t1\t1\n  # middle\n  train_2 1 1 1  \n",
    "a byte order mark": b"\xef\xbb\xbftrain_1 1 1 1\r\ntrain_2 1 1 1\r\n",
}


@pytest.mark.parametrize("damage", BAD_LISTS.values(), ids=BAD_LISTS)
def test_an_invalid_list_of_pets_is_refused(copied, damage):
    folder = copied("pets")
    damage(folder / LIST)
    with refused(folder / LIST):
        prepare("pets", folder)


@pytest.mark.parametrize("pet", NAMES_OF_NO_PHOTO.values(), ids=NAMES_OF_NO_PHOTO)
def test_a_list_that_names_a_missing_photo_is_refused(copied, pet):
    folder = copied("pets")
    (folder / LIST).write_text(f"train_1 1 1 1\n{pet} 1 1 1\n")
    with refused(folder / "images"):
        prepare("pets", folder)


@pytest.mark.parametrize("data", VALID_LISTS.values(), ids=VALID_LISTS)
def test_lists_of_pets_in_other_notations_give_the_same_examples(originals, copied, data):
    folder = copied("pets")
    (folder / LIST).write_bytes(data)
    assert prepare("pets", folder).checksum == originals["pets"][1]


@pytest.mark.parametrize("name", ["pairs", "dubai"])
def test_folders_that_cannot_be_listed_are_left_out(copied, monkeypatch, name):
    folder = copied(name)
    for place in (folder, folder.parent):
        (place / "lost+found").mkdir()
    is_dir = Path.is_dir

    def guarded(path):
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")  # as in Python 3.10 and 3.11
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", guarded)
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "lost+found")
    for data_dir in (folder, folder.parent):
        assert DATASETS[name].find(data_dir, "train")


@pytest.mark.parametrize("file_name", ["stra\udcdfe.jpg", "two\nlines.jpg"], ids=["not UTF-8", "two lines"])
def test_messages_with_unusual_file_names_have_one_line(copied, exit_message, file_name):
    folder = copied("pairs")
    try:
        (folder / "train" / file_name).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    message = exit_message(lambda values: prepare("pairs", folder))
    assert_one_sentence(message, file_name.replace("\n", " "))
