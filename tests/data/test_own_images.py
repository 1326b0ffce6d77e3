"""A user's photos and masks are paired, split and read, and the classes are found in the masks."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from core.data import cache, class_list, own_folders, own_images
from core.runtime.errors import InputError

IDS = class_list.ClassList(("a", "b", "c"), ((0,), (7,), (300,)), False)
VALUES = np.array([[0, 7], [7, 0]], np.uint8).repeat(4, axis=0).repeat(4, axis=1)  # 8x8


def write_photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)


def write_mask(path, values=VALUES, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.convert("P")
        image.putpalette(palette)
    image.save(path)


def write_pairs(folder, names, values=VALUES):
    for seed, name in enumerate(names):
        write_photo(folder / "images" / f"{name}.png", seed)
        write_mask(folder / "masks" / f"{name}.png", values)


def dataset(folder=None, classes=IDS, **options):
    sizes = {} if "patch_size" in options else {"size": 8}
    preparation = own_images.Preparation(classes, **sizes, **options)
    return own_images.dataset(preparation, val_share=0.25, split_seed=1, data_dir=folder)


def names(folder, split):
    return [photo.relative_to(folder).as_posix() for photo, _ in own_folders.find(folder, split)]


# --- pairs and splits


def test_photos_and_masks_are_paired_by_path_and_stem(tmp_path):
    write_pairs(tmp_path / "set", ["10", "2", "deep/er/1"])
    (tmp_path / "set/images/2.png").rename(tmp_path / "set/images/2.PNG")
    Image.open(tmp_path / "set/images/10.png").save(tmp_path / "set/images/10.bmp")
    (tmp_path / "set/images/10.png").unlink()
    for folder in (tmp_path / "set", tmp_path):
        found = own_folders.find(folder, "train")
        assert [photo.name for photo, _ in found] == ["2.PNG", "10.bmp", "1.png"]
        assert [mask.name for _, mask in found] == ["2.png", "10.png", "1.png"]


def test_a_list_beside_the_folder_of_the_data_set_is_refused(tmp_path):
    write_pairs(tmp_path / "set", ["a", "b"])
    (tmp_path / "train.txt").write_text("a")
    with pytest.raises(InputError, match="train.txt: not used"):
        own_folders.find(tmp_path, "train")


@pytest.mark.parametrize("form, other", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_with_accents_match_in_composed_and_decomposed_form(tmp_path, form, other):
    """In a macOS archive, a file name may hold "ä" as two characters: the letter "a" and the two dots."""
    write_photo(tmp_path / "images" / f"{unicodedata.normalize(form, 'straße ä')}.png")
    write_mask(tmp_path / "masks" / f"{unicodedata.normalize(other, 'straße ä')}.png")
    assert len(own_folders.find(tmp_path, "train")) == 1
    write_pairs(tmp_path, ["b"])
    for split, name in (("train", unicodedata.normalize(other, "straße ä")), ("val", "b")):
        (tmp_path / f"{split}.txt").write_text(name, encoding="utf-8")
    ((photo, _),) = own_folders.find(tmp_path, "train")
    assert photo.name == f"{unicodedata.normalize(form, 'straße ä')}.png"


def test_a_random_split_by_photo_is_disjoint_and_keeps_patches_together(tmp_path):
    write_pairs(tmp_path, "abcdefgh")
    made = dataset(tmp_path, patch_size=4)
    splits = {split: cache.prepare(made, tmp_path, split, tmp_path / "cache") for split in ("train", "val")}
    owners = {split: set(examples.owner[examples.rows]) for split, examples in splits.items()}
    assert len(splits["train"]) == 24 and len(splits["val"]) == 8
    assert not owners["train"] & owners["val"] and len(owners["val"]) == 2


@pytest.mark.parametrize("place", ["{split}/images", "images/{split}"])
def test_folders_define_the_splits(tmp_path, place):
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            photos = place.format(split=split)
            write_photo(tmp_path / photos / f"{index}.png")
            write_mask(tmp_path / photos.replace("images", "masks") / f"{index}.png")
    for split, count in (("train", 3), ("val", 2)):
        found = own_folders.find(tmp_path, split)
        assert len(found) == count
        for pair in found:
            photo, mask = (path.relative_to(tmp_path).as_posix() for path in pair)
            assert mask == photo.replace("images", "masks") and split in photo
        assert dataset(tmp_path).select(np.arange(count), split).tolist() == list(range(count))


def test_lists_define_the_splits(tmp_path, capsys):
    write_pairs(tmp_path, ["a", "b", "sub/c", "d"])
    (tmp_path / "train.txt").write_text("b\n# a comment\nimages/sub/c.png\n")
    with pytest.raises(InputError, match="val.txt: not a readable text file"):
        own_folders.find(tmp_path, "train")
    (tmp_path / "val.txt").write_text("a.png\n")
    assert names(tmp_path, "train") == ["images/b.png", "images/sub/c.png"]
    assert names(tmp_path, "val") == ["images/a.png"]
    cache.prepare(dataset(tmp_path), tmp_path, "train", tmp_path / "cache")
    assert "1 photos are in neither train.txt nor val.txt" in capsys.readouterr().out
    (tmp_path / "val.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="val.txt: b.png is in train.txt too"):
        own_folders.find(tmp_path, "val")
    (tmp_path / "val.txt").write_text("e\n")
    with pytest.raises(InputError, match="val.txt: line 1, 'e': no photo in images/ has this name or path"):
        own_folders.find(tmp_path, "val")
    write_pairs(tmp_path, ["other/c"])
    (tmp_path / "val.txt").write_text("c\n")
    with pytest.raises(InputError, match="line 1, 'c': 2 photos have this name or path"):
        own_folders.find(tmp_path, "val")


def test_several_data_sets_one_level_down_are_refused(tmp_path):
    for name in ("training", "validation"):
        write_pairs(tmp_path / name, ["a"])
    with pytest.raises(InputError, match="holds several data sets .training, validation.; pass one of them"):
        own_folders.find(tmp_path, "train")


def test_missing_folders_photos_and_masks_are_named(tmp_path):
    with pytest.raises(InputError, match="no folders images/ and masks/"):
        own_folders.find(tmp_path, "train")
    write_photo(tmp_path / "only_val/val/images/a.png")
    (tmp_path / "only_val/val/images/b.heic").touch()
    with pytest.raises(InputError, match="only_val/train: this folder is missing"):
        own_folders.find(tmp_path / "only_val", "train")
    (tmp_path / "only_val/val/images/a.png").unlink()
    (tmp_path / "only_val/val/masks").mkdir()
    with pytest.raises(InputError, match="val/images: no file with one of the suffixes .jpg"):
        own_folders.find(tmp_path / "only_val", "val")
    write_pairs(tmp_path, ["a", "b"])
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(InputError, match="images/b.png: no mask .*masks/b with an image suffix"):
        own_folders.find(tmp_path, "train")
    write_mask(tmp_path / "masks/b.png")
    write_photo(tmp_path / "images/a.bmp")
    with pytest.raises(InputError, match="has the same stem"):
        own_folders.find(tmp_path, "train")


# --- masks


def read(folder, **options):
    return dataset(folder, **options).read(own_folders.find(folder, "train")[0], "train")


def test_ids_of_8_and_16_bits_and_palettes_become_class_ids(tmp_path):
    write_pairs(tmp_path, ["a"])
    expected = (VALUES == 7).astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path)[1][0], expected)
    write_mask(tmp_path / "masks/a.png", palette=[9, 9, 9] * 256)
    np.testing.assert_array_equal(read(tmp_path)[1][0], expected)
    write_mask(tmp_path / "masks/a.png", np.where(VALUES == 7, 300, 0).astype(np.uint16))
    np.testing.assert_array_equal(read(tmp_path)[1][0], 2 * expected)
    Image.fromarray(np.full((8, 8), 500, np.uint16)).save(tmp_path / "images/a.png")
    assert np.unique(read(tmp_path, white_level=2000)[0]).tolist() == [64]


def test_a_palette_mask_without_its_palette_is_read_as_ids(tmp_path):
    write_pairs(tmp_path, ["a"])
    path = tmp_path / "masks/a.png"
    write_mask(path, palette=[9, 9, 9] * 256)
    data = path.read_bytes()
    start = data.index(b"PLTE") - 4  # a chunk has 4 bytes of length, 4 of type, its data, and 4 of checksum
    path.write_bytes(data[:start] + data[start + 12 + 3 * 256 :])
    classes, _ = own_images.find_classes(tmp_path)
    assert classes.values == ((0,), (7,))


def test_photos_are_resized_bilinearly_and_masks_by_nearest_neighbour(tmp_path):
    write_pairs(tmp_path, ["a"], np.where(VALUES == 7, 300, 0).astype(np.uint16))
    preparation = own_images.Preparation(IDS, size=7)
    made = own_images.dataset(preparation, val_share=0.5, split_seed=0, data_dir=tmp_path)
    photo, mask = made.read(own_folders.find(tmp_path, "train")[0], "train")
    expected = Image.open(tmp_path / "images/a.png").resize((7, 7), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(photo[0], expected)
    assert mask.shape == (1, 7, 7) and set(np.unique(mask)) == {0, 2}  # 1 would be an interpolated class id


def test_mask_values_without_a_class_are_refused_or_ignored(tmp_path):
    write_pairs(tmp_path, ["a"], np.where(VALUES == 7, 255, 0).astype(np.uint8))
    with pytest.raises(InputError, match=r"a.png: 50.00% .* to no class, most often 255; .*--ignore=255"):
        read(tmp_path)
    assert set(np.unique(read(tmp_path, ignore=(255,))[1])) == {0, 255}


@pytest.mark.parametrize("coloured", [False, True], ids=["ids", "colours"])
def test_a_value_of_both_a_class_and_ignore_is_ignored(tmp_path, coloured):
    values = VALUES[..., None].repeat(3, axis=-1) if coloured else VALUES
    write_pairs(tmp_path, ["a"], values)
    zero_and_seven = class_list.ClassList(("a", "b"), ((0,), (0x070707 if coloured else 7,)), coloured)
    _, mask = read(tmp_path, classes=zero_and_seven, ignore=(0,))
    np.testing.assert_array_equal(mask[0], np.where(VALUES == 0, 255, 1))


def test_colours_become_class_ids_exactly_or_within_a_tolerance(tmp_path):
    red_and_blue = class_list.ClassList(("red", "blue"), ((0xFF0000, 0x800000), (0x0000FF,)), True)
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4], colours[4:6], colours[6:] = (255, 0, 0), (128, 0, 0), (0, 3, 250)
    write_pairs(tmp_path, ["a"], colours)
    with pytest.raises(InputError, match="most often #0003fa; .*--colour_tolerance"):
        read(tmp_path, classes=red_and_blue)
    _, mask = read(tmp_path, classes=red_and_blue, colour_tolerance=5)
    np.testing.assert_array_equal(mask[0, :, 0], [0, 0, 0, 0, 0, 0, 1, 1])


def test_a_mask_of_another_size_is_named(tmp_path):
    write_pairs(tmp_path, ["a"])
    write_mask(tmp_path / "masks/a.png", VALUES[:4])
    with pytest.raises(InputError, match="a.png: 8x4 pixels, but its photo has 8x8"):
        read(tmp_path)


# --- classes found in the masks


def test_classes_are_found_in_all_masks_and_counted(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    write_mask(tmp_path / "masks/b.png", np.full((8, 8), 40000, np.uint16))
    found, counts = own_images.find_classes(tmp_path)
    assert found.names == ("class 0", "class 7", "class 40000") and not found.coloured
    assert counts == {0: 32, 7: 32, 40000: 64}


def test_palette_masks_that_disagree_about_a_colour_are_refused(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    colours = [channel for index in range(256) for channel in (index, 0, 0)]
    write_mask(tmp_path / "masks/a.png", palette=colours)
    write_mask(tmp_path / "masks/b.png", palette=[*colours[:9], 1, 2, 3, *colours[12:]])  # 3 is not used
    assert len(own_images.find_classes(tmp_path)[0].names) == 2
    ignored = Image.fromarray(np.where(VALUES == 7, 255, 0).astype(np.uint8)).convert("P")
    ignored.putpalette(colours[:63])  # 21 colours, as in Pascal VOC; 255 has no colour
    ignored.save(tmp_path / "masks/b.png")
    assert len(own_images.find_classes(tmp_path)[0].names) == 3
    write_mask(tmp_path / "masks/b.png", palette=[*colours[:21], 1, 2, 3, *colours[24:]])
    with pytest.raises(
        InputError, match=r"b.png: the palette index 7 has .*\(1, 2, 3\), but in .*a.png it has"
    ):
        own_images.find_classes(tmp_path)


def test_deep_masks_of_colours_are_refused(tmp_path):
    write_pairs(tmp_path, ["a"])
    (tmp_path / "masks/a.png").unlink()
    write_mask(tmp_path / "masks/a.tif", VALUES.astype(np.uint16) * 100)
    with pytest.raises(InputError, match="a.tif: .*a mask of colours must have 8 bits per sample"):
        own_images.find_classes(tmp_path)


def test_classes_are_found_without_unreadable_masks_on_request(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    (tmp_path / "masks/b.png").write_bytes(b"not a PNG")
    with pytest.raises(InputError, match="b.png"):
        own_images.find_classes(tmp_path)
    assert own_images.find_classes(tmp_path, skip_unreadable=True)[1] == {0: 32, 7: 32}
    (tmp_path / "masks/a.png").write_bytes(b"not a PNG")
    with pytest.raises(InputError, match="none of the 2 masks can be read"):
        own_images.find_classes(tmp_path, skip_unreadable=True)


def test_masks_of_0_and_255_are_two_classes(tmp_path):
    write_pairs(tmp_path, ["a"])
    for image in (Image.fromarray(VALUES > 0), Image.fromarray((VALUES > 0).astype(np.uint8) * 255)):
        image.save(tmp_path / "masks/a.png")
        assert own_images.find_classes(tmp_path)[0].values == ((0,), (255,))


def test_if_one_mask_holds_colours_all_classes_are_colours(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    write_mask(tmp_path / "masks/b.png", np.full((8, 8, 3), (1, 2, 3), np.uint8))
    found, _ = own_images.find_classes(tmp_path)
    assert found.coloured and found.names == ("colour #000000", "colour #010203", "colour #070707")


def test_black_and_white_masks_with_grey_edges_are_refused(tmp_path):
    square = np.zeros((40, 40), np.uint8)
    square[10:25, 12:31] = 255
    blended = Image.fromarray(square).resize((29, 29), Image.Resampling.BICUBIC).resize((40, 40))
    for mode in ("L", "RGB"):
        write_pairs(tmp_path / mode, "ab", np.asarray(blended.convert(mode)))
        with pytest.raises(InputError, match="black, white and [0-9]+ shades of grey, as after scaling"):
            own_images.find_classes(tmp_path / mode)
    # as in Pascal VOC, where 255 marks borders
    void = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40) % 21
    void[:, :9], void[:, 30:] = 0, 255
    write_pairs(tmp_path / "void", "ab", void)
    assert len(own_images.find_classes(tmp_path / "void")[0].names) == 22


def test_too_many_values_and_a_single_value_are_refused(tmp_path):
    write_pairs(tmp_path, ["a"], np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="one value, apart from transparency"):
        own_images.find_classes(tmp_path)
    noise = np.random.RandomState(0).randint(0, 256, (40, 8, 3)).astype(np.uint8)
    write_mask(tmp_path / "masks/a.png", noise)
    with pytest.raises(InputError, match="more than 255 different values, .*--classes"):
        own_images.find_classes(tmp_path)


def test_jpeg_masks_of_two_values_are_not_taken_for_many_classes(tmp_path):
    write_pairs(tmp_path, ["a"])
    large = np.zeros((1000, 1000), np.uint8)
    large[300:] = 255
    large[500:504, 500:504] = 0
    Image.fromarray(large).save(tmp_path / "masks/a.jpg", quality=80)
    (tmp_path / "masks/a.png").unlink()
    with pytest.raises(InputError, match="if JPEG compression changed the colours, .*--colour_tolerance"):
        own_images.find_classes(tmp_path)


def test_shares_of_classes_are_printed_and_masks_without_any_class_are_refused(tmp_path, capsys):
    write_pairs(tmp_path, ["a"])
    files = own_folders.find(tmp_path, "train")
    pixels = np.zeros(256, np.int64)
    pixels[[0, 1, 255]] = 30, 10, 5
    dataset(tmp_path).check(pixels, files)
    printed = capsys.readouterr().out
    assert "40 mask pixels; in addition, 5 pixels are ignored" in printed
    assert [line.split() for line in printed.splitlines()[1:]] == [
        ["a", "75.00%"],
        ["b", "25.00%"],
        ["c", "0.00%"],  # `core.training.checks.check_examples` warns about this class
    ]
    with pytest.raises(InputError, match="all pixels of the masks are ignored"):
        dataset(tmp_path).check(np.bincount([255], minlength=256), files)
