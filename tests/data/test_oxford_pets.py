"""The official layout of the pets is read, with files as unusual as in the real data set."""

import numpy as np
import pytest
from PIL import Image

from core.data import oxford_pets
from core.runtime.errors import InputError

DATASET = oxford_pets.dataset(size=16)


@pytest.fixture
def pets(tmp_path):
    """Write four photos with trimaps and lists; return the folder.

    The photos are a JPEG, a PNG with alpha, a GIF and a greyscale PNG, but all names end in .jpg.
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    noise = np.random.RandomState(0).randint(0, 256, (40, 24, 4)).astype(np.uint8)
    rgba = Image.fromarray(noise)
    trimap = np.full((40, 24), 2, np.uint8)
    trimap[10:30] = 3
    trimap[14:26] = 1
    kinds = {"a_1": ("RGB", "JPEG"), "b_2": ("RGBA", "PNG"), "c_3": ("P", "GIF"), "d_4": ("L", "PNG")}
    for name, (mode, kind) in kinds.items():
        rgba.convert("RGB").convert(mode).save(tmp_path / "images" / f"{name}.jpg", kind)
        Image.fromarray(trimap).save(tmp_path / "annotations" / "trimaps" / f"{name}.png")
    lines = "# a header\r\na_1 1 1 1\r\n\r\nc_3 1 1 1\r\nb_2 1 1 1\r\n"
    (tmp_path / "annotations" / "trainval.txt").write_text(lines, newline="")
    (tmp_path / "annotations" / "test.txt").write_text("d_4 1 1 1")
    return tmp_path


def test_the_official_lists_define_the_splits(pets):
    names = [[photo.stem for photo, _ in DATASET.find(pets, split)] for split in ("train", "val")]
    assert names == [["a_1", "c_3", "b_2"], ["d_4"]]


def test_a_name_that_is_listed_twice_is_used_once(pets):
    path = pets / "annotations/trainval.txt"
    found = DATASET.find(pets, "train")
    path.write_text(2 * path.read_text())
    assert DATASET.find(pets, "train") == found


def test_trimaps_become_class_ids_from_0_for_photos_of_every_format(pets):
    for files in [*DATASET.find(pets, "train"), *DATASET.find(pets, "val")]:
        photo, mask = DATASET.read(files, "train")
        assert photo.shape == (1, 16, 16, 3) and photo.dtype == np.uint8
        # 0 pet, 1 background, 2 outline; interpolation would give background between pet and outline
        assert mask[0, :, 8].tolist() == 4 * [1] + 2 * [2] + 4 * [0] + 2 * [2] + 4 * [1]
    Image.fromarray(np.full((40, 24), 500, np.uint16)).save(files[0], "PNG")
    deep = oxford_pets.dataset(size=16, white_level=2000)
    assert np.unique(deep.read(files, "val")[0]).tolist() == [64] and deep.settings != DATASET.settings


def test_names_in_another_unicode_form_than_in_the_list_are_found(pets):
    (pets / "images/a_1.jpg").rename(pets / "images/ma\u0308r_1.jpg")  # NFD, as macOS may store names
    (pets / "annotations/trimaps/a_1.png").rename(pets / "annotations/trimaps/m\u00e4r_1.png")
    (pets / "annotations/trainval.txt").write_text("m\u00e4r_1 1 1 1\n", encoding="utf-8")
    ((photo, trimap),) = DATASET.find(pets, "train")
    assert photo.is_file() and trimap.is_file()


def test_photos_with_other_suffixes_and_folders_of_any_letter_case_are_found(pets):
    (pets / "images/a_1.jpg").rename(pets / "images/a_1.JPEG")
    (pets / "images").rename(pets / "Images")
    (pets / "annotations/trimaps").rename(pets / "annotations/Trimaps")
    assert DATASET.find(pets, "train")[0][0].samefile(pets / "Images/a_1.JPEG")
    # on a case-insensitive file system, both spellings of the suffix name the same file, like this link
    if not (pets / "Images/a_1.jpeg").exists():
        (pets / "Images/a_1.jpeg").symlink_to("a_1.JPEG")
    assert DATASET.find(pets, "train")[0][0].name == "a_1.jpeg"
    (pets / "Images/a_1.png").touch()
    with pytest.raises(InputError, match="has the same name"):
        DATASET.find(pets, "train")
