"""Pairs of photo and mask are found, and a mask pixel near the road colour is road."""

import shutil

import numpy as np
import pytest
from conftest import write_pair
from PIL import Image

from core.data import cityscapes_pairs
from core.runtime.errors import InputError


def road(tolerance=30, rgb=(128, 64, 128), size=32, **options):
    return cityscapes_pairs.road_dataset(size=size, road_rgb=rgb, road_tolerance=tolerance, **options)


@pytest.mark.parametrize("tolerance, expected", [(10, [1, 0, 0, 0]), (30, [1, 1, 0, 0]), (50, [1, 1, 1, 0])])
def test_a_pixel_is_road_if_no_channel_differs_by_more_than_the_tolerance(tmp_path, tolerance, expected):
    # colours at channel distances 0, 20, 40 and 66
    colours = np.array([(128, 64, 128), (148, 44, 148), (128, 104, 128), (70, 130, 180)], np.uint8)
    pair = np.zeros((64, 128, 3), np.uint8)
    pair[:, 64:] = colours.repeat(16, axis=0)
    Image.fromarray(pair).save(tmp_path / "1.jpg", quality=95, subsampling=0)
    _, masks = road(tolerance, size=64).read((tmp_path / "1.jpg",), "train")
    assert masks[0, 32, 8::16].tolist() == expected


def test_the_photo_is_the_left_half_and_mask_colours_are_not_interpolated(tmp_path):
    write_pair(tmp_path / "1.jpg", side=64, quality=100)
    photo, masks = road().read((tmp_path / "1.jpg",), "train")
    left = Image.open(tmp_path / "1.jpg").crop((0, 0, 64, 64)).resize((32, 32), Image.BILINEAR)
    np.testing.assert_array_equal(photo[0], left)
    assert photo.shape == (1, 32, 32, 3) and photo.dtype == masks.dtype == np.uint8
    assert masks[0, :15].max() == 0 and masks[0, 17:].min() == 1


def test_pairs_are_found_in_the_folder_or_a_subfolder(pairs):
    names = ["1.jpg", "2.jpg", "3.jpg"]
    for data_dir in (pairs, pairs.parent):
        found = cityscapes_pairs.find(data_dir, "val")
        assert [path.name for (path,) in found] == names
    (pairs / "val" / "._1.jpg").touch()
    (pairs / "val" / "Thumbs.db").touch()
    assert len(cityscapes_pairs.find(pairs, "val")) == 3


def test_two_data_sets_one_level_down_and_one_pair_in_two_files_are_refused(pairs):
    shutil.copytree(pairs, pairs.parent / "sets/a")
    other = shutil.copytree(pairs, pairs.parent / "sets/b")
    with pytest.raises(InputError, match="holds several data sets .a, b.; pass one of them"):
        cityscapes_pairs.find(pairs.parent / "sets", "train")
    Image.open(other / "train/1.jpg").save(other / "train/1.png")
    with pytest.raises(InputError, match="has the same name before the suffix"):
        cityscapes_pairs.find(other, "train")


def test_pairs_of_any_format_in_folders_of_any_letter_case_are_found(pairs):
    (pairs / "val").rename(pairs / "Val")
    Image.open(pairs / "Val/1.jpg").save(pairs / "Val/4.PNG")
    assert [path.name for (path,) in cityscapes_pairs.find(pairs, "val")][-1] == "4.PNG"
    assert len(cityscapes_pairs.find(pairs, "val")) == 4


def test_masks_without_road_are_refused_and_their_most_frequent_colours_listed(pairs):
    files = cityscapes_pairs.find(pairs, "train")
    literal = road(tolerance=0, rgb=(128, 63, 126))
    pixels = sum(np.bincount(literal.read(each, "train")[1].ravel(), minlength=256) for each in files)
    assert pixels[1] == 0
    with pytest.raises(InputError, match=r"\(0, 0, 0\) \d+.\d%.*--road_rgb"):
        literal.check(pixels, files)
    road().check(np.array([5, 1] + [0] * 254), files)


def test_the_listed_colours_of_16_bit_pairs_depend_on_the_white_level(tmp_path):
    Image.fromarray(np.full((8, 16), 500, np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"are \(64, 64, 64\) 100.0%"):
        road(white_level=2000).check(np.array([9] + [0] * 255), [(tmp_path / "1.png",)])
    photo, _ = road(white_level=2000).read((tmp_path / "1.png",), "train")
    assert np.unique(photo).tolist() == [64]


def test_clean_labels_remove_specks_and_resize_by_majority(tmp_path):
    pair = np.zeros((64, 128, 3), np.uint8)
    pair[33:, 64:] = (128, 64, 128)  # the upper half of resized row 16 is not road
    # one speck in each 8x8 area, at the pixel that nearest neighbour would sample
    for row, column in np.ndindex(8, 8):
        pair[8 * row + 5, 64 + 8 * column + 5] = (128, 64, 128) if row < 4 else (70, 130, 180)
    pair[36:40, 64:73] = (70, 130, 180)  # 4x9 pixels are too many for a speck
    Image.fromarray(pair).save(tmp_path / "1.jpg", quality=100, subsampling=0)
    (plain,), (clean,) = (
        road(clean_labels=clean).read((tmp_path / "1.jpg",), "train")[1] for clean in (False, True)
    )
    assert plain[:16].sum() == 4 * 8
    assert clean[:16].sum() == 0
    assert clean[17:].sum() == 15 * 32 - 2 * 4
    assert road(clean_labels=True).settings != road().settings
