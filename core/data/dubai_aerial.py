"""Dubai from the air: the MBRSC set, photos in tiles with masks by colour.

    Tile 1/images/image_part_001.jpg .. Tile 8/images/image_part_009.jpg
    Tile 1/masks/image_part_001.png  .. Tile 8/masks/image_part_009.png

Photo and mask go together by name. The photos of a tile are of one size, from
509x544 to 2149x1479; all are cut into square patches. The set's classes.json
names colours that are not in the masks: the masks' own are below, by value.
"""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core.data.images import read_rgb, require_same_size
from core.data.listing import here_and_below, image_files
from core.data.synthetic import aerial_scenes
from core.experiment import Dataset
from core.runtime.errors import InputError

COLOURS = {
    "building": (60, 16, 152),
    "land": (132, 41, 246),
    "road": (110, 193, 228),
    "vegetation": (254, 221, 58),
    "water": (226, 169, 41),
    "unlabeled": (155, 155, 155),
}
CLASSES, PALETTE = tuple(COLOURS), tuple(COLOURS.values())
UNLABELED = CLASSES.index("unlabeled")
OTHER = 255  # a colour that is none of these
HELD_OUT = 10  # one patch, or image, of so many validates
GENERATED = {"Tile 1": 3, "Tile 2": 3, "Tile 3": 3, "Tile 4": 3}
PALETTE_TILES = ("Tile 2", "Tile 4")  # their masks are palette PNGs, in the real set too


def dataset(*, patch_size, split_by, split_seed):
    """The six classes in patches of patch_size x patch_size.

    split_by: "patch" draws the validation patches from all, so that most have
    neighbours in training; "image" keeps the patches of a photo together.
    split_seed: int from 0 to 2**32 - 1. By patch, the rows drawn are those of
    scikit-learn's train_test_split(test_size=0.1, random_state=split_seed).
    """
    return Dataset(
        name="dubai_aerial",
        find=find,
        read=lambda files, split: _read(*files, patch_size),
        settings={"patch_size": patch_size},
        generate=generate,
        check=lambda pixels, files: _check(pixels, files, patch_size),
        select=lambda owner, split: _select(owner, split, split_by, split_seed),
    )


def find(data_dir, split):
    """(photo, mask) of every photo of every tile, the same for both splits.

    The tiles, in the order of their numbers, are in data_dir or in a folder just
    below it. Raises InputError where there are none, and for the first photo
    that has no mask. A mask without a photo is left alone.
    """
    for root in here_and_below(data_dir):
        tiles = [path for path in root.glob("Tile *") if re.fullmatch(r"Tile \d+", path.name)]
        tiles.sort(key=lambda path: (int(path.name.split()[1]), path.name))
        examples = [example for tile in tiles for example in _tile(tile)]
        if examples:
            return examples
    raise InputError(
        f"{data_dir}: no folders 'Tile 1', 'Tile 2', .. with images/ and masks/ here or one level"
        " down; pass the folder that holds them as --data_dir."
    )


def generate(folder):
    """Write generated aerial photos in the same layout: about 3 MB."""

    def write(tile, part):
        number = list(GENERATED).index(tile)
        photo, labels = aerial_scenes.scene((number, part), size=aerial_scenes.tile_size(number))
        mask = Image.fromarray(labels, "P")
        mask.putpalette(np.array(PALETTE, np.uint8).tobytes())
        name = f"image_part_{part + 1:03}"
        Image.fromarray(photo).save(folder / tile / "images" / f"{name}.jpg", quality=92)
        mask = mask if tile in PALETTE_TILES else mask.convert("RGB")
        mask.save(folder / tile / "masks" / f"{name}.png")

    with ThreadPoolExecutor() as pool:
        for tile, count in GENERATED.items():
            for part in ("images", "masks"):
                (folder / tile / part).mkdir(parents=True, exist_ok=True)
            list(pool.map(write, [tile] * count, range(count)))


def _tile(tile):
    masks = {path.stem: path for path in image_files(tile / "masks", (".png",))}
    for photo in image_files(tile / "images", (".jpg", ".jpeg")):
        if photo.stem not in masks:
            raise InputError(
                f"{photo}: no mask {tile / 'masks' / photo.stem}.png; restore it or remove the photo."
            )
        yield photo, masks[photo.stem]


def _read(photo_file, mask_file, patch_size):
    photo, mask = read_rgb(photo_file), read_rgb(mask_file)
    require_same_size(photo, mask, mask_file)
    if min(photo.size) < patch_size:
        raise InputError(
            f"{photo_file}: {photo.width}x{photo.height} pixels hold no patch of {patch_size};"
            " take a smaller --patch_size or remove the photo and its mask."
        )
    class_ids = _class_ids(_packed(np.asarray(mask)))
    class_ids[class_ids == OTHER] = UNLABELED
    return _patches(np.asarray(photo), patch_size), _patches(class_ids, patch_size)


def _patches(pixels, size):
    """[H, W, ...] -> [K, size, size, ...]: row by row from the top left, what is over cut off."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    grid = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, *pixels.shape[2:])
    return grid.swapaxes(1, 2).reshape(rows * columns, size, size, *pixels.shape[2:])


def _packed(colours):
    """uint8 [..., 3] -> int32 [...]: red, green, blue in one number."""
    return colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def _unpacked(colour):
    return int(colour) >> 16, int(colour) >> 8 & 255, int(colour) & 255


def _class_ids(packed):
    """int32 [...] -> uint8 [...]: the class of exactly that colour, or OTHER."""
    class_ids = np.full(packed.shape, OTHER, np.uint8)
    for class_id, colour in enumerate(_packed(np.array(PALETTE, np.uint8))):
        class_ids[packed == colour] = class_id
    return class_ids


def _check(pixels, files, patch_size):
    """Print which colours of the patches are no class's; raise if nothing is labelled."""
    if not pixels[UNLABELED]:
        return

    def others(files):
        packed = _packed(_patches(np.asarray(read_rgb(files[1])), patch_size))
        colours, counts = np.unique(packed[_class_ids(packed) == OTHER], return_counts=True)
        return {_unpacked(colour): int(count) for colour, count in zip(colours, counts)}

    seen = Counter()
    with ThreadPoolExecutor() as pool:
        for counts in pool.map(others, files):
            seen.update(counts)
    frequent = ", ".join(f"{colour} {count:,}" for colour, count in seen.most_common(5))
    if pixels.sum() == pixels[UNLABELED]:
        raise InputError(
            f"{files[0][1].parent}: no pixel of the {len(files)} masks has the colour of a class; the most"
            f" frequent are {frequent or 'those of the unlabeled'}: correct the masks, whose colours are"
            f" {COLOURS}."
        )
    if seen:
        print(
            f"{seen.total():,} of {pixels.sum():,} mask pixels ({seen.total() / pixels.sum():.2%}) have no"
            f" class's colour and count as unlabeled: {frequent}{' ...' if len(seen) > 5 else ''}"
        )


def _select(owner, split, split_by, split_seed):
    groups = owner if split_by == "image" else np.arange(len(owner))
    count = groups[-1] + 1
    if count < 2:
        raise InputError(
            f"one {split_by} cannot be split into training and validation: add images, or take"
            " --split_by=patch with a smaller --patch_size."
        )
    order = np.random.RandomState(split_seed).permutation(count)  # its numbers are frozen for good
    held_out = np.isin(groups, order[: -(-count // HELD_OUT)])
    return np.flatnonzero(held_out if split == "val" else ~held_out)
