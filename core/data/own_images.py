"""Read the user's own photos and masks. If no file lists the classes, find the classes in the masks.

`core.data.own_folders` finds the pairs of photo and mask. A mask is either a PNG file of ids, or an image
file in which each class has a colour. A PNG file stores ids as palette indices or as greyscale values of 1 to
16 bits. The two greyscale values of 1 bit are read as the ids 0 and 255.

A mask value is an id or a packed colour (`core.data.colours.pack`).
"""

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from core.data import class_list, colours, images, own_folders, patches, read_ahead
from core.data.synthetic import pet_scenes
from core.experiment import IGNORE, Dataset
from core.runtime.errors import InputError

GENERATED = 120  # number of generated photos
# A mask value is rare if less than the fraction RARE of all pixels have this value. `_refuse_noise` refuses
# masks if both conditions hold: more than MAX_RARE different values are rare, and more than half of the
# different values are rare.
RARE, MAX_RARE = 1e-4, 8
# `_refuse_greys` refuses masks only if they have at least this many different greys. Black and white count
# as greys.
FEWEST_GREYS = 16


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Settings for making examples from photos and masks.

    classes:           `class_list.ClassList`
    ignore:            tuple of mask values. Pixels with these values are left out of loss and metrics, even
                       if the value belongs to a class
    size:              side, in pixels, of the squares to which photos and masks are resized. None if
                       patch_size is set
    patch_size:        side, in pixels, of the patches into which photos and masks are cut. None if size is
                       set
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

    If lists or folders in data_dir define the two splits, these splits are used. Otherwise a random share of
    the photos is used for validation. val_share: this share, 0 to 1. split_seed: seed of the random choice,
    see `patches.held_out`.

    Raises InputError if preparation.classes and preparation.ignore have more than 255 mask values together,
    or if data_dir does not hold the folders that `own_folders` describes.
    """
    values = sum(preparation.classes.values, preparation.ignore)
    if len(values) > class_list.MAX_CLASSES:
        raise InputError(
            f"--classes and --ignore list {len(values)} mask values, but at most"
            f" {class_list.MAX_CLASSES} are possible; list fewer."
        )
    is_random = data_dir is None or not own_folders.has_splits(Path(data_dir))

    def select(owner, split):
        """Return the indices of the examples of a split. owner, split: see `patches.select`."""
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
    )


def find_classes(data_dir, *, skip_unreadable=False):
    """Return (classes, counts) for the masks in data_dir.

    classes: a `ClassList` with one class for each mask value that occurs. counts: Counter, mask value ->
    number of pixels. The mask values are ids if all masks are PNG files of ids, otherwise colours.
    skip_unreadable: True leaves out masks that cannot be read. The cache reports these masks later.

    Raises InputError in these cases:
    - the masks have fewer than 2 or more than 255 different values
    - most mask values are rare, as after lossy compression (`_refuse_noise`)
    - the masks look like black-and-white masks that were scaled or smoothed (`_refuse_greys`)
    - palette masks use different colours for the same index (`_refuse_other_palette`)
    - a mask cannot be read and skip_unreadable is False, no mask can be read, or `own_folders.find` raises
      InputError
    """
    splits = own_folders.SPLITS if own_folders.has_splits(data_dir) else own_folders.SPLITS[:1]
    masks = list(dict.fromkeys(mask for split in splits for _, mask in own_folders.find(data_dir, split)))
    coloured = not all(map(_holds_ids, masks))

    def count(mask):
        """Return (values, numbers of pixels, palette) of a mask, or None if the mask is left out."""
        try:
            values, numbers = np.unique(_mask_values(mask, coloured), return_counts=True)
            return values, numbers, [] if coloured else _palette(mask)
        except InputError:
            if not skip_unreadable:
                raise

    counts, known = Counter(), {}
    with ThreadPoolExecutor() as pool:
        for mask, counted in zip(masks, read_ahead.ahead(pool, count, masks, read_ahead.pixel_count)):
            if counted:
                values, pixels, palette = counted
                counts.update(dict(zip(values.tolist(), pixels.tolist())))
                _refuse_other_palette(mask, values, palette, known)
            if len(counts) > class_list.MAX_CLASSES:
                break
    if not counts:
        raise InputError(f"{masks[0].parent}: none of the {len(masks)} masks can be read; replace them.")
    _refuse_noise(counts, coloured, masks[0].parent)
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


def _palette(mask_file):
    """Return the palette of a palette image, a list of (red, green, blue); [] for images of other modes."""
    with Image.open(mask_file, formats=images.FORMATS) as image:
        flat = image.palette.getdata()[1] if image.palette else b""  # without decoding the pixels
    return list(zip(flat[::3], flat[1::3], flat[2::3]))


def _refuse_other_palette(mask, indices, palette, known):
    """Raise InputError if a mask uses another colour for a palette index than an earlier mask.

    Some programs save each mask of colours with a palette of its own. The indices are then no class ids.
    Indices that a palette lacks are not compared.
    mask: the mask file. indices: the palette indices that the mask uses. palette: its colours, or [] if the
    mask has no palette. known: index -> (colour, earlier mask). The function adds the colours of this mask.
    """
    for index in indices[indices < len(palette)].tolist():
        colour, earlier = known.setdefault(index, (palette[index], mask))
        if colour != palette[index]:
            raise InputError(
                f"{mask}: the palette index {index} has the colour {palette[index]}, but in {earlier} it has"
                f" {colour}, so the indices may not be class ids; save the masks as RGB, or, if the indices"
                " are class ids, list them in a file for --classes."
            )


def _refuse_noise(counts, coloured, folder):
    """Raise InputError if the masks have more than 255 different mask values, or too many rare mask values.

    JPEG compression of masks produces many rare colours. RARE and MAX_RARE define "too many rare".
    counts: Counter, mask value -> number of pixels. coloured: True if mask values are packed colours. folder:
    the folder of the masks, which the message names.
    """
    cure = "if all of them are classes, list their ids in a file for --classes"
    if coloured:
        cure = (
            "if JPEG compression changed the colours, list the colours of the classes in a file for"
            " --classes, and let --colour_tolerance=N match them"
        )
    if len(counts) > class_list.MAX_CLASSES:
        raise InputError(
            f"{folder}: the masks hold more than {class_list.MAX_CLASSES} different values, but at most"
            f" {class_list.MAX_CLASSES} classes are possible; merge classes in the masks"
            f"{', or, ' + cure if coloured else ''}."
        )
    rare = sum(pixels < RARE * counts.total() for pixels in counts.values())
    if rare > MAX_RARE and rare > len(counts) / 2:
        raise InputError(
            f"{folder}: {rare} of the {len(counts)} different values in the masks each fill less than"
            f" {RARE:.2%} of the pixels; {cure}."
        )


def _refuse_greys(counts, coloured, folder):
    """Raise InputError if the masks look like black-and-white masks that were scaled or smoothed.

    The function raises InputError if all of these conditions hold:
    - All mask values are greys, and there are at least FEWEST_GREYS of them. Ids count as greys.
    - Black (0) and white (255) are the two most frequent mask values.
    - The second-largest grey is at least 200. So most masks of ids are not refused: ids of classes are
      usually below 200, and 255 often marks pixels without a class.

    counts: Counter, mask value -> number of pixels. coloured: True if mask values are packed colours. folder:
    the folder of the masks, which the message names.
    """
    unit = 0x010101 if coloured else 1  # the packed colour of a grey is its level, 0..255, times 0x010101
    greys = sorted(value // unit for value in counts if value % unit == 0)
    frequent = {value / unit for value, _ in counts.most_common(2)}
    if len(greys) == len(counts) >= FEWEST_GREYS and frequent == {0, 255} and greys[-2] >= 200:
        raise InputError(
            f"{folder}: the masks hold black, white and {len(greys) - 2} shades of grey, as after scaling or"
            " smoothing; save them with black and white alone, or list the classes in a file for --classes."
        )


def generate(folder):
    """Write generated photos of pets into folder/images, and masks with the ids 1 to 3 into folder/masks.

    The files take about 5 MB.
    """
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)

    def write(index):
        photo, ids = pet_scenes.scene((2, index))
        Image.fromarray(photo).save(folder / "images" / f"pet_{index + 1}.jpg", quality=92)
        Image.fromarray(ids).save(folder / "masks" / f"pet_{index + 1}.png")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(GENERATED)))


def _holds_ids(mask_file):
    """True if a mask file is a PNG file of ids, or if it cannot be opened.

    If a file cannot be opened, `_mask_values` later raises an error that gives the reason.
    """
    try:
        with Image.open(mask_file, formats=images.FORMATS) as image:
            return image.format == "PNG" and image.mode in images.ID_MODES
    except Exception:
        return True


def _mask_values(mask_file, coloured):
    """Return the mask value of each pixel of a mask file: int32 [H, W].

    The mask values are packed colours if coloured is True, otherwise ids.
    """
    if coloured:
        return colours.pack(images.read_mask_colours(mask_file))
    return np.asarray(images.read_class_ids(mask_file, largest=class_list.MAX_ID))


def _read(photo_file, mask_file, preparation):
    """Return (photos, masks), the K examples that are made from a photo and its mask.

    photos: uint8 [K, S, S, 3]. masks: uint8 [K, S, S], class ids or IGNORE. If preparation.patch_size is set,
    the examples are patches, and S is patch_size. Otherwise K is 1, and S is preparation.size.
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
    """Return the class id of each pixel of a mask file: uint8 [H, W].

    The pixels whose mask value is in preparation.ignore get IGNORE, even if the value belongs to a class.
    Raises InputError if a mask value belongs to no class and is not in preparation.ignore.
    """
    classes = preparation.classes
    values = _mask_values(mask_file, classes.coloured)
    known = {value: index for index, accepted in enumerate(classes.values) for value in accepted}
    known |= dict.fromkeys(preparation.ignore, IGNORE)
    if classes.coloured:
        palette = [colours.unpack(value) for value in known]
        nearest = colours.class_ids(values, palette, preparation.colour_tolerance)
    else:
        table = np.full(class_list.MAX_ID + 1, colours.OTHER, np.uint8)
        table[list(known)] = np.arange(len(known))
        nearest = table[values]
    _refuse_others(mask_file, values[nearest == colours.OTHER], values.size, preparation)
    return np.array(list(known.values()), np.uint8)[nearest]


def _refuse_others(mask_file, others, total, preparation):
    """Raise InputError if a mask has pixels that belong to no class.

    The message names the most frequent mask value of these pixels.

    others: int32 [N], the mask values of the N pixels that belong to no class and are not ignored. total:
    number of all pixels of the mask.
    """
    if not others.size:
        return
    coloured = preparation.classes.coloured
    values, counts = np.unique(others, return_counts=True)
    value = class_list.value_text(values[counts.argmax()], coloured)
    cure = f"correct the mask, or, in a new run, list {value} in the file --classes or give --ignore={value}"
    if coloured:
        cure += ", or let --colour_tolerance=N match colours that differ from a class colour by at most N"
    raise InputError(
        f"{mask_file}: {others.size / total:.2%} of the pixels have a value that belongs to no class, most"
        f" often {value}; {cure}."
    )


def _check(pixels, files, names):
    """Print the share of each class in the masks. Raises InputError if all pixels are ignored.

    pixels: int64 [256], number of pixels of each class id. files: list of the (photo, mask) files of these
    masks. If the splits are random, the masks of both splits are counted, otherwise only the training masks.
    names: the class names.
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
