"""Read the MBRSC data set: aerial photos of Dubai, with masks in which each class has a colour.

MBRSC is the Mohammed Bin Rashid Space Centre. The data set has this layout:

    Tile 1/images/image_part_001.jpg .. Tile 8/images/image_part_009.jpg
    Tile 1/masks/image_part_001.png  .. Tile 8/masks/image_part_009.png

The folders Tile 1 to Tile 8 are called tiles. A photo and its mask have the same name before the suffix. The
sizes of the photos of a tile differ by at most one pixel. The smallest photos have 509x544 pixels (Tile 2),
and the largest photos have 1817x2062 pixels (Tile 7). Photos are cut into square patches.

The data set contains a file classes.json, but most colours in this file differ from the colours in the masks.
`COLOURS` lists the colours in the masks.

A user's own photos in the same layout may have any format that `core.data.images` can read. The letter
case of folder names is ignored.
"""

import functools
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core.data import colours, patches, read_ahead, remarks
from core.data.images import read_mask_colours, read_rgb, require_same_size
from core.data.listing import by_stem, find_root, here_and_below, image_files, pairs, subfolder
from core.data.synthetic import aerial_scenes
from core.experiment import Dataset
from core.runtime.errors import InputError

# class name -> RGB in the masks
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
HELD_OUT = 0.1  # share of the patches (or, with split_by="image", of the photos) used for validation
# Masks are refused if more than this share of all mask pixels has a colour that belongs to no class but
# differs by at most colours.NEAR in each channel from a class colour.
NEAR_SHARE = 0.01
GENERATED = {"Tile 1": 3, "Tile 2": 3, "Tile 3": 3, "Tile 4": 3}  # number of generated photos in each tile
# tiles whose generated masks are palette PNG files, because some masks of MBRSC are palette PNG files
PALETTE_TILES = ("Tile 2", "Tile 4")


def dataset(*, patch_size, split_by, split_seed, colour_tolerance=0, white_level=0):
    """Return the `Dataset` with six classes. Its examples are patches of patch_size x patch_size pixels.

    split_by:          "patch": the validation patches are drawn at random from all patches. So most of them
                       come from photos that also have training patches. "image": photos are drawn at random,
                       and all patches of the drawn photos are used for validation
    split_seed:        seed of this random choice, an int from 0 to 2**32 - 1
    colour_tolerance:  the largest allowed difference, 0..255, between a mask pixel and its class colour in
                       any channel
    white_level:       see `images.read_rgb`
    """
    settings = {"patch_size": patch_size, "colour_tolerance": colour_tolerance, "white_level": white_level}
    return Dataset(
        name="dubai_aerial",
        find=find,
        read=lambda files, split: _read(*files, **settings),
        settings=settings,
        generate=generate,
        size=None,
        check=lambda pixels, files: _check(pixels, files, patch_size, colour_tolerance),
        select=lambda owner, split: patches.select(owner, split, split_by, HELD_OUT, split_seed),
    )


def find(data_dir, split):
    """Return a list of (photo, mask) files for all tiles, sorted by the tiles' numbers.

    The list is the same for both splits, because all photos are decoded before the function `select` of the
    `Dataset` divides the patches into the two splits. The tiles are in data_dir itself or in one of its
    direct subfolders.

    Masks without a photo are not used. Folders that hold images/ but are not named like a tile are not used
    either. Warnings give the number of such masks and the number of such folders (`core.data.remarks`).

    Raises InputError if there is no tile with photos, if several subfolders hold tiles, if a tile lacks
    images/ or masks/, or if a photo has no mask.
    """
    root = find_root(data_dir, _tiles)
    tiles = _tiles(root) if root else []
    examples = [example for tile in tiles for example in _tile(tile)]
    if not examples:
        raise InputError(
            f"{data_dir}: no folders 'Tile 1', 'Tile 2', .. with images/ and masks/ here or one level"
            " down; pass the folder that holds them as --data_dir."
        )
    _remark_others(root, tiles)
    return examples


def generate(folder):
    """Write generated aerial photos and masks into a folder. The files take about 3 MB.

    The folder gets the layout of the data set.
    """

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


def _tiles(root):
    """Return the paths in root that are named like a tile, sorted by the tiles' numbers."""
    tiles = [path for path in root.glob("*") if re.fullmatch(r"tile[ _-]?\d+", path.name, re.IGNORECASE)]
    return sorted(tiles, key=lambda path: (int(re.search(r"\d+", path.name)[0]), path.name))


def _tile(tile):
    """Return a list of the (photo, mask) files in a tile's folder. Raises InputError as `pairs` does."""
    masks_folder = subfolder(tile, "masks")
    masks, photos = (by_stem(image_files(folder)) for folder in (masks_folder, subfolder(tile, "images")))
    return pairs(photos, masks, masks_folder)


def _remark_others(root, tiles):
    """Call `remarks.add` if folders in root hold images/ but are not named like a tile.

    root: the folder that holds the tiles. tiles: list of the folders in root that are named like a tile.
    """
    folders = [path for path in here_and_below(root)[1:] if subfolder(path, "images").is_dir()]
    names = [path.name for path in folders if path not in tiles]
    if names:
        count = f"{len(names)} folders not called 'Tile N' are not used"
        remarks.add("other folders", f"{root}: {count} ({', '.join(names)})")


def _read(photo_file, mask_file, patch_size, colour_tolerance, white_level):
    """Return (photos, class_ids), the K patches of a photo and of its mask.

    photos: uint8 [K, patch_size, patch_size, 3]. class_ids: uint8 [K, patch_size, patch_size]. Pixels whose
    mask colour belongs to no class get the class id UNLABELED.
    """
    photo, mask = read_rgb(photo_file, white_level=white_level), read_mask_colours(mask_file)
    require_same_size(photo, mask, mask_file)
    patches.require_one(photo, photo_file, patch_size)
    class_ids = colours.class_ids(colours.pack(mask), PALETTE, colour_tolerance)
    class_ids[class_ids == colours.OTHER] = UNLABELED
    return patches.cut(np.asarray(photo), patch_size), patches.cut(class_ids, patch_size)


def _check(pixels, files, patch_size, colour_tolerance):
    """If some mask colours belong to no class, print the most frequent of them and their numbers of pixels.

    pixels: int64 [256], number of pixels of each class id. files: list of the readable (photo, mask)
    files. patch_size, colour_tolerance: see `dataset`. Raises InputError if all pixels are unlabeled, or if
    `_refuse_near_colours` does.
    """
    if not pixels[UNLABELED]:
        return
    others = Counter()
    with ThreadPoolExecutor() as pool:
        count = functools.partial(_other_colours, patch_size=patch_size, colour_tolerance=colour_tolerance)
        masks = [mask for _, mask in files]
        for counts in read_ahead.ahead(pool, count, masks, read_ahead.pixel_count):
            others.update(counts)
    frequent = ", ".join(f"{colour} {count:,}" for colour, count in others.most_common(5))
    frequent += " ..." * (len(others) > 5)
    if pixels.sum() == pixels[UNLABELED]:
        raise InputError(
            f"{files[0][1].parents[2]}: no pixel of the {len(files)} masks has the colour of a class other"
            f" than unlabeled (most frequent unknown colours: {frequent or 'none'}); correct the masks: the"
            f" colours of the classes are {COLOURS}."
        )
    if others:
        _refuse_near_colours(others, pixels.sum(), files)
        share = others.total() / pixels.sum()
        print(
            f"{others.total():,} of {pixels.sum():,} mask pixels ({share:.2%}) have a colour of no class"
            f" and count as unlabeled: {frequent}"
        )


def _other_colours(mask_file, patch_size, colour_tolerance):
    """Return a dict of the colours in a mask that belong to no class: RGB -> number of pixels.

    Pixels outside of the patches are not counted. patch_size, colour_tolerance: see `dataset`.
    """
    packed = colours.pack(patches.cut(np.asarray(read_mask_colours(mask_file)), patch_size))
    is_other = colours.class_ids(packed, PALETTE, colour_tolerance) == colours.OTHER
    values, counts = np.unique(packed[is_other], return_counts=True)
    return {colours.unpack(colour): int(count) for colour, count in zip(values, counts)}


def _refuse_near_colours(others, total, files):
    """Raise InputError if too many mask pixels have almost, but not exactly, the colour of a class.

    A colour counts if it belongs to no class and differs by at most colours.NEAR in each channel from a class
    colour. The largest allowed share of pixels with such colours is NEAR_SHARE.

    others: Counter of the colours that belong to no class, RGB -> number of pixels. total: number of mask
    pixels in all patches. files: list of (photo, mask) files.
    """
    nearest, distance = colours.nearest_colours(colours.pack(list(others)), PALETTE)
    near = Counter()
    for colour, class_id, difference in zip(others, nearest, distance):
        if difference <= colours.NEAR:
            near[f"{colour} near {CLASSES[class_id]} {PALETTE[class_id]}"] = others[colour]
    if near.total() > NEAR_SHARE * total:
        shown = ", ".join(text for text, _ in near.most_common(3))
        raise InputError(
            f"{files[0][1].parents[2]}: {near.total() / total:.1%} of the mask pixels have almost, but not"
            f" exactly, the colour of a class, as after JPEG compression ({shown}); give"
            f" --colour_tolerance={colours.NEAR}, or use masks that were saved without lossy compression."
        )
