"""Photos of the aerial data set are found, cut into patches and split; mask colours become class ids."""

import io

import numpy as np
import pytest
from conftest import refused
from PIL import Image

from core.data import cache, dubai_aerial, patches
from core.data.synthetic import aerial_scenes
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import dubai_aerial as article

BUILDING, LAND, ROAD, VEGETATION, WATER, UNLABELED = dubai_aerial.PALETTE


def write_tile(folder, *, count=1, size=(4, 6), colour=ROAD):
    """Write the folder of a tile: `count` photos of noise, and masks of one colour. size: (height, width)."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        photo = np.random.RandomState(index).randint(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"part_{index + 1}.jpg")
        write_mask(folder / "masks" / f"part_{index + 1}.png", np.full((*size, 3), colour, np.uint8))


def write_mask(path, colours):
    Image.fromarray(np.asarray(colours, np.uint8)).save(path)


def dataset(*, patch_size=2, split_by="patch", split_seed=42, **options):
    return dubai_aerial.dataset(patch_size=patch_size, split_by=split_by, split_seed=split_seed, **options)


# --- files


def test_tiles_and_photos_are_sorted_by_their_numbers(tmp_path):
    for tile in (10, 2, 1):
        write_tile(tmp_path / "set" / f"Tile {tile}", count=11)
    found = dubai_aerial.find(tmp_path / "set", "train")
    names = [photo.relative_to(tmp_path / "set").as_posix() for photo, _ in found]
    assert names == [f"Tile {t}/images/part_{i}.jpg" for t in (1, 2, 10) for i in range(1, 12)]
    for photo, mask in found:
        assert photo.stem == mask.stem and photo.parents[1] == mask.parents[1]
    assert found == dubai_aerial.find(tmp_path / "set", "val") == dubai_aerial.find(tmp_path, "train")


def test_a_photo_without_mask_is_named(tmp_path):
    write_tile(tmp_path / "Tile 1", count=2)
    (tmp_path / "Tile 1/masks/part_2.png").unlink()
    with pytest.raises(InputError, match=r"part_2\.jpg: no mask .*masks/part_2 with an image suffix"):
        dubai_aerial.find(tmp_path, "train")


# --- pixels


def test_patches_are_cut_row_by_row_from_the_top_left(tmp_path):
    write_tile(tmp_path / "Tile 1", size=(5, 7))
    files = dubai_aerial.find(tmp_path, "train")[0]
    colours = np.zeros((5, 7, 3), np.uint8)
    for index, colour in enumerate(dubai_aerial.PALETTE):
        top, left = 2 * (index // 3), 2 * (index % 3)
        colours[top : top + 2, left : left + 2] = colour
    write_mask(files[1], colours)
    photos, masks = dataset().read(files, "train")
    assert photos.shape == (6, 2, 2, 3) and photos.dtype == masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, np.arange(6)[:, None, None] * np.ones((1, 2, 2)))
    photo = np.asarray(Image.open(files[0]))
    np.testing.assert_array_equal(photos[0], photo[:2, :2])
    np.testing.assert_array_equal(photos[4], photo[2:4, 2:4])


def test_palette_masks_give_the_same_class_ids_as_rgb_masks(tmp_path):
    write_tile(tmp_path / "Tile 2")
    files = dubai_aerial.find(tmp_path, "train")[0]
    indices = np.random.RandomState(0).randint(0, 3, (4, 6)).astype(np.uint8)
    mask = Image.fromarray(indices).convert("P")
    mask.putpalette([*WATER, *BUILDING, *LAND])  # another order than in the list of classes
    mask.save(files[1])
    assert Image.open(files[1]).mode == "P"
    _, masks = dataset(patch_size=4).read(files, "train")
    np.testing.assert_array_equal(masks[0], np.array([4, 0, 1])[indices[:, :4]])
    Image.fromarray(np.full((4, 6), 500, np.uint16)).save(files[0], "PNG")
    assert np.unique(dataset(white_level=2000).read(files, "train")[0]).tolist() == [64]


def test_colours_of_no_class_are_unlabeled_and_counted(tmp_path, capsys):
    write_tile(tmp_path / "Tile 1", count=2)
    files = dubai_aerial.find(tmp_path, "train")
    colours = np.full((4, 6, 3), ROAD, np.uint8)
    colours[0, :3] = 0
    colours[1, 0] = np.array(ROAD) + (40, 0, 0)
    colours[2, 0] = UNLABELED
    colours[3, 5] = 7
    write_mask(files[1][1], colours)
    cut = dataset(patch_size=4)  # patches leave out the last two columns, and with them the value 7
    pixels = sum(np.bincount(cut.read(pair, "train")[1].ravel(), minlength=256) for pair in files)
    assert pixels[2] == 27 and pixels[5] == 5 and pixels.sum() == 32
    cut.check(pixels, files)
    assert capsys.readouterr().out == (
        "4 of 32 mask pixels (12.50%) have a colour of no class and count as unlabeled:"
        " (0, 0, 0) 3, (150, 193, 228) 1\n"
    )


def test_nothing_is_printed_if_all_colours_belong_to_classes(tmp_path, capsys):
    write_tile(tmp_path / "Tile 1")
    write_tile(tmp_path / "Tile 2", colour=UNLABELED)
    dataset().check(np.bincount([2, 5], minlength=256), dubai_aerial.find(tmp_path, "train"))
    assert not capsys.readouterr().out


def test_masks_without_any_class_are_refused_and_their_colours_listed(tmp_path):
    write_tile(tmp_path / "Tile 1", colour=(80, 227, 194))
    files = dubai_aerial.find(tmp_path, "train")
    pixels = np.bincount(dataset().read(files[0], "train")[1].ravel(), minlength=256)
    with pytest.raises(InputError, match=r"most frequent unknown colours: \(80, 227, 194\) 24"):
        dataset().check(pixels, files)


def test_a_photo_smaller_than_a_patch_and_a_mask_of_another_size_are_named(tmp_path):
    write_tile(tmp_path / "Tile 1")
    files = dubai_aerial.find(tmp_path, "train")[0]
    with pytest.raises(
        InputError, match=r"part_1\.jpg: 6x4 pixels are too few for a patch of 5;.*--patch_size"
    ):
        dataset(patch_size=5).read(files, "train")
    write_mask(files[1], np.zeros((6, 4, 3)))
    with pytest.raises(InputError, match=r"part_1\.png: 4x6 pixels, but its photo has 6x4"):
        dataset().read(files, "train")


# --- splits

OWNER = np.repeat(np.arange(23), np.random.RandomState(0).randint(1, 9, 23))


@pytest.mark.parametrize("split_by", ["patch", "image"])
def test_splits_are_disjoint_and_complete_and_depend_on_the_seed(split_by):
    def rows(split, seed):
        return dataset(split_by=split_by, split_seed=seed).select(OWNER, split)

    training, validation = rows("train", 1), rows("val", 1)
    assert sorted([*training, *validation]) == list(range(len(OWNER)))
    np.testing.assert_array_equal(validation, rows("val", 1))
    assert not np.array_equal(validation, rows("val", 2))
    photos = set(OWNER[training]) & set(OWNER[validation])
    if split_by == "image":
        assert not photos and len(set(OWNER[validation])) == 3  # a tenth of 23, rounded up
    else:
        assert photos and len(validation) == -(-len(OWNER) // 10)


def test_a_split_by_patch_equals_scikit_learn():
    # the result of sorted(train_test_split(np.arange(40), test_size=0.1, random_state=42)[1])
    np.testing.assert_array_equal(dataset().select(np.zeros(40, int), "val"), [15, 16, 19, 26])


def test_one_photo_or_patch_cannot_be_split():
    with pytest.raises(InputError, match="one image cannot be split .*; add images.$"):
        dataset(split_by="image").select(np.zeros(9, int), "train")
    with pytest.raises(InputError, match="one patch cannot be split .*; add images or cut smaller patches.$"):
        dataset().select(np.zeros(1, int), "val")


def test_a_share_that_leaves_no_photo_for_training_is_refused():
    assert patches.select(np.arange(3), "train", "image", 0.6, 0).size == 1
    for split in ("train", "val"):
        with refused("a validation share of 0.9 of 3 photos leaves none for training"):
            patches.select(np.arange(3), split, "image", 0.9, 0)


# --- generated data, and the whole data set


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "data"
    dubai_aerial.generate(folder)
    return folder


def test_generated_tiles_differ_in_size_and_contain_every_class(generated):
    files = dubai_aerial.find(generated, "train")
    assert [mask.parents[1].name for _, mask in files] == [f"Tile {t}" for t in (1, 2, 3, 4) for _ in "123"]
    sizes, pixels = set(), 0
    for photo, mask in files:
        with Image.open(photo) as image, Image.open(mask) as colours:
            assert image.format == "JPEG" and image.size == colours.size
            assert colours.mode == ("P" if mask.parents[1].name in ("Tile 2", "Tile 4") else "RGB")
            assert all(340 <= side <= 660 for side in image.size)
            sizes.add(image.size)
        pixels += np.bincount(dataset(patch_size=160).read((photo, mask), "train")[1].ravel(), minlength=256)
    assert len(sizes) == 4
    assert (pixels[:6] > 0).all() and not pixels[6:].any()


def test_generated_scenes_depend_only_on_the_seed_and_use_the_class_ids_of_the_set():
    scene = aerial_scenes.scene((0, 1), size=(60, 80))
    assert scene[0].shape == (60, 80, 3) and scene[1].shape == (60, 80)
    for first, again in zip(scene, aerial_scenes.scene((0, 1), size=(60, 80))):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(scene[1], aerial_scenes.scene((0, 2), size=(60, 80))[1])
    for number, name in enumerate(dubai_aerial.CLASSES):
        assert getattr(aerial_scenes, name.upper()) == number


@pytest.mark.parametrize("flag", ["--patch_size=100", "--patch_size=0", "--split_by=tile", "--split_seed=-1"])
def test_invalid_flags_are_refused(flag):
    with pytest.raises(InputError, match=flag.split("=")[0].strip("-")):
        cli.parse(article.define_flags, [flag])


# --- photos that users bring


def compressed(colours):
    """Return colours uint8 [H, W, 3] after JPEG compression."""
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def test_photos_of_any_format_in_folders_of_any_letter_case_are_found(tmp_path):
    write_tile(tmp_path / "Tile 1", count=3)
    write_tile(tmp_path / "tile 2", count=1)
    photo = tmp_path / "Tile 1/images/part_2.jpg"
    Image.open(photo).save(photo.with_suffix(".PNG"))
    photo.unlink()
    (tmp_path / "tile 2/images").rename(tmp_path / "tile 2/Images")
    *found, last = (photo for photo, _ in dubai_aerial.find(tmp_path, "train"))
    assert found == [tmp_path / "Tile 1/images" / f"part_{name}" for name in ("1.jpg", "2.PNG", "3.jpg")]
    assert last.samefile(tmp_path / "tile 2/Images/part_1.jpg")


def test_files_and_folders_that_are_not_used_are_counted_in_warnings(tmp_path, capsys):
    write_tile(tmp_path / "Tile 1", count=2, size=(4, 4))
    write_tile(tmp_path / "Suburb", count=1)
    (tmp_path / "Tile 1/images/notes.txt").touch()
    (tmp_path / "Tile 1/images/part_1.jpg").unlink()
    cache.prepare(dataset(), tmp_path, "train", tmp_path / "cache")
    printed = capsys.readouterr().out
    assert "1 folders not called 'Tile N' are not used (Suburb)" in printed
    assert "1 other files are not used (notes.txt)" in printed
    assert "masks: 1 masks without a photo are not used" in printed


def test_two_photos_with_the_same_stem_are_refused(tmp_path):
    write_tile(tmp_path / "Tile 1")
    Image.new("RGB", (6, 4)).save(tmp_path / "Tile 1/images/part_1.png")
    with refused("part_1"):
        dubai_aerial.find(tmp_path, "train")


def test_colours_after_jpeg_compression_are_refused_and_read_with_a_tolerance(tmp_path, capsys):
    write_tile(tmp_path / "Tile 1", size=(64, 64))
    files = dubai_aerial.find(tmp_path, "train")[0]
    ids = np.arange(64)[:, None] // 16 * np.ones((1, 64), int)
    write_mask(files[1], compressed(np.array(dubai_aerial.PALETTE, np.uint8)[ids]))

    def read(**options):
        made = dataset(patch_size=64, **options)
        masks = made.read(files, "train")[1]
        made.check(np.bincount(masks.ravel(), minlength=256), [files])
        return masks[0]

    with pytest.raises(InputError, match=r": \d+\.\d% of the mask pixels have almost.*--colour_tolerance"):
        read()
    assert (read(colour_tolerance=32) == ids).mean() > 0.96
    assert "have a colour of no class" in capsys.readouterr().out
