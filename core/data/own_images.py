"""Read the user's own photos and masks, and find the classes in masks if no file lists them.

`core.data.own_folders` finds the pairs of files. A mask is one of two kinds of file: a PNG file of ids,
or an image whose colours stand for classes. A PNG file stores ids as greyscale values of 8 or 16 bits,
as palette indices, or in 1 bit per pixel, which is read as the ids 0 and 255.

A mask value is an id or a packed colour (`core.data.colours.pack`).
"""

import dataclasses
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from core.data import cache, class_list, colours, images, own_folders, patches
from core.data.synthetic import pet_scenes
from core.experiment import IGNORE, Dataset
from core.runtime.errors import InputError

GENERATED = 120  # number of generated photos
# A mask value is rare if less than the share RARE of all pixels has it. Masks are refused if more than
# MAX_RARE values, and more than half of all values, are rare.
RARE, MAX_RARE = 1e-4, 8
# Masks with at least this many greys, from black to white, are taken for smoothed black-and-white masks.
FEWEST_GREYS = 16
ID_MODES = ("1", "L", "P", "I", "I;16")  # Pillow's modes of PNG files that store ids


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Settings for making examples from photos and masks.

    classes:           `class_list.ClassList`
    ignore:            mask values of pixels that are left out of loss and metrics
    size:              side of the squares, in pixels, that photos are resized to; None: patch_size is set
    patch_size:        side of the patches, in pixels, that photos are cut into; None: size is set
    colour_tolerance:  largest allowed difference, 0..255, between a mask pixel and its class colour in
                       any channel
    white_level:       see `images.read_rgb`
    """

    classes: class_list.ClassList
    ignore: tuple = ()
    size: int | None = None
    patch_size: int | None = None
    colour_tolerance: int = 0
    white_level: int = 0


def dataset(preparation, *, val_share, split_seed, data_dir=None):
    """Return the `Dataset` of the photos in data_dir, or of generated photos if data_dir is None.

    If data_dir defines no splits, a random share of the photos is used for validation. val_share: this
    share, 0 to 1. split_seed: see `patches.held_out`. Raises InputError if preparation has more than 255
    mask values.
    """
    values = sum(preparation.classes.values, preparation.ignore)
    if len(values) > class_list.MAX_CLASSES:
        raise InputError(
            f"--classes: {len(values)} mask values with those of --ignore, but at most"
            f" {class_list.MAX_CLASSES} are possible; list fewer."
        )
    is_random = data_dir is None or not own_folders.has_splits(Path(data_dir))

    def select(owner, split):
        if is_random:
            return patches.select(owner, split, "image", val_share, split_seed)
        return np.arange(len(owner))

    return Dataset(
        name="own_images",
        find=own_folders.find,
        read=lambda files, split: _read(*files, preparation),
        settings=dataclasses.asdict(preparation),
        generate=generate,
        check=lambda pixels, files: _check(pixels, files, preparation.classes.names),
        select=select,
        size=preparation.size,
        white_level=preparation.white_level,
    )


def find_classes(data_dir):
    """Return a `ClassList` with one class for each value in the masks, and a Counter of the values' pixels.

    The values are ids if all masks are PNG files of ids. Otherwise they are colours. Raises InputError
    if the masks have fewer than 2 or more than 255 values, if most values are so rare that lossy
    compression must have produced them, and if the masks are black and white with grey edges.
    """
    splits = own_folders.SPLITS if own_folders.has_splits(data_dir) else own_folders.SPLITS[:1]
    masks = list(dict.fromkeys(mask for split in splits for _, mask in own_folders.find(data_dir, split)))
    coloured = not all(map(_holds_ids, masks))
    counts = Counter()
    with ThreadPoolExecutor() as pool:
        for values, pixels in pool.map(lambda mask: _count(_mask_values(mask, coloured)), masks):
            counts.update(dict(zip(values.tolist(), pixels.tolist())))
            if len(counts) > class_list.MAX_CLASSES:
                break
    _refuse_noise(counts, masks[0].parent)
    _refuse_greys(counts, coloured, masks[0].parent)
    if len(counts) < 2:
        raise InputError(
            f"{masks[0].parent}: all pixels of the masks have one value, apart from transparency, which is"
            " not read; add masks of other values."
        )
    values = sorted(counts)
    kind = "colour" if coloured else "class"
    names = tuple(f"{kind} {class_list.value_text(value, coloured)}" for value in values)
    return class_list.ClassList(names, tuple((value,) for value in values), coloured), counts


def _refuse_noise(counts, folder):
    """Raise InputError if there are too many mask values, or too many rare ones, as after JPEG compression.

    counts: Counter mask value -> number of pixels. folder: the masks' folder, for the message.
    """
    rare = sum(pixels < RARE * counts.total() for pixels in counts.values())
    if len(counts) > class_list.MAX_CLASSES or (rare > MAX_RARE and rare > len(counts) / 2):
        raise InputError(
            f"{folder}: the masks hold {len(counts)} or more different values, and each of {rare} values in"
            f" less than {RARE:.2%} of the pixels, as after JPEG compression; list the classes in a file for"
            " --classes, with --colour_tolerance if their colours vary."
        )


def _refuse_greys(counts, coloured, folder):
    """Raise InputError if the mask values are black, white and many greys, as after scaling or smoothing.

    Masks of ids are not refused: ids of classes are well below 200, and 255 often marks pixels without a
    class. So the function requires a value from 200 to 254.
    """
    unit = 0x010101 if coloured else 1  # the packed colour of a grey is its level, 0..255, times 0x010101
    greys = sorted(value // unit for value in counts if value % unit == 0)
    frequent = {value / unit for value, _ in counts.most_common(2)}
    if len(greys) == len(counts) >= FEWEST_GREYS and frequent == {0, 255} and greys[-2] >= 200:
        raise InputError(
            f"{folder}: the masks hold black, white and {len(greys) - 2} shades of grey, as after scaling or"
            " smoothing; save them with black and white alone, or list the classes in a file for --classes."
        )


def generated(cache_dir):
    """Return the folder with generated photos and masks; generate them if the folder is missing."""
    no_classes = Preparation(class_list.ClassList((), (), False))
    return cache.generated(dataset(no_classes, val_share=0, split_seed=0), cache_dir)


def generate(folder):
    """Write generated photos of pets into folder/images, and masks of ids 1 to 3 into folder/masks: 5 MB."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)

    def write(index):
        photo, ids = pet_scenes.scene((2, index))
        Image.fromarray(photo).save(folder / "images" / f"pet_{index + 1}.jpg", quality=92)
        Image.fromarray(ids).save(folder / "masks" / f"pet_{index + 1}.png")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(GENERATED)))


def _holds_ids(mask_file):
    """True for a PNG file whose pixels are ids, and for a file that cannot be opened.

    `_mask_values` reads the file later and raises an error that says why it cannot be opened.
    """
    try:
        if not os.path.isfile(mask_file):
            return True
        with Image.open(mask_file, formats=images.FORMATS) as image:
            return image.format == "PNG" and image.mode in ID_MODES
    except Exception:
        return True


def _mask_values(mask_file, coloured):
    """Return the mask values of all pixels, packed colours if coloured, otherwise ids: int32 [H, W]."""
    if coloured:
        return colours.pack(images.read_rgb(mask_file))
    return images.read_wide_class_ids(mask_file)


def _count(values):
    """Return the distinct values and the number of pixels of each."""
    return np.unique(values, return_counts=True)


def _read(photo_file, mask_file, preparation):
    """Return the K examples made from a photo, uint8 [K, S, S, 3], and its mask, uint8 [K, S, S].

    S is preparation.size or preparation.patch_size. The masks hold class ids or IGNORE.
    """
    photo = images.read_rgb(photo_file, white_level=preparation.white_level)
    mask = Image.fromarray(_class_ids(mask_file, preparation))
    images.require_same_size(photo, mask, mask_file)
    if preparation.patch_size:
        patches.require_one(photo, photo_file, preparation.patch_size)
        return tuple(patches.cut(np.asarray(part), preparation.patch_size) for part in (photo, mask))
    size = (preparation.size, preparation.size)
    photo = photo.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(photo)[None], np.asarray(mask.resize(size, Image.Resampling.NEAREST))[None]


def _class_ids(mask_file, preparation):
    """Return the class id of each pixel of a mask, or IGNORE: uint8 [H, W].

    Raises InputError if a pixel's value belongs to no class and is not among those to ignore.
    """
    classes = preparation.classes
    values = _mask_values(mask_file, classes.coloured)
    known = [(value, index) for index, values in enumerate(classes.values) for value in values]
    known += [(value, IGNORE) for value in preparation.ignore]
    if classes.coloured:
        palette = [colours.unpack(value) for value, _ in known]
        nearest = colours.class_ids(values, palette, preparation.colour_tolerance)
    else:
        table = np.full(class_list.MAX_ID + 1, colours.OTHER, np.uint8)
        table[[value for value, _ in known]] = np.arange(len(known))
        nearest = table[values]
    _refuse_others(mask_file, values[nearest == colours.OTHER], values.size, preparation)
    return np.array([index for _, index in known], np.uint8)[nearest]


def _refuse_others(mask_file, others, total, preparation):
    """Raise InputError if there are mask values that belong to no class; name the most frequent one.

    others: the values of these pixels, int32. total: number of pixels of the mask.
    """
    if not others.size:
        return
    coloured = preparation.classes.coloured
    values, counts = _count(others)
    value = class_list.value_text(values[counts.argmax()], coloured)
    cure = f"add it to --classes, or leave these pixels out with --ignore={value}"
    if coloured:
        cure += ", or let --colour_tolerance=N match colours that differ from a class colour by at most N"
    raise InputError(
        f"{mask_file}: {others.size / total:.2%} of the pixels have a value that belongs to no class, most"
        f" often {value}; {cure}."
    )


def _check(pixels, files, names):
    """Print the share of each class in the training masks. Raises InputError if all pixels are ignored.

    pixels: int64 [256], number of pixels of each class id. files: the training files. names: of the classes.
    """
    counted, ignored = pixels[: len(names)], pixels[IGNORE]
    if not counted.sum():
        raise InputError(
            f"{files[0][1].parent}: all pixels of the masks are ignored; correct --ignore or --classes."
        )
    print(
        f"shares of the classes in {counted.sum():,} mask pixels; in addition, {ignored:,} pixels are"
        " ignored:"
    )
    for name, count in zip(names, counted):
        print(f"  {name:<30}{count / counted.sum():8.2%}")
        if not count:
            print(f"warning: no pixel of the training masks is {name}; the network cannot learn this class")
