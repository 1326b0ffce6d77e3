"""The user's photos and masks in folders, with classes from a file or found in the masks.

    images/...            photos of any readable format, nested or not
    masks/...             a mask of the same path and stem for each photo

Three things can define the splits; the first that exists is used: the lists train.txt and
val.txt (one path or stem of a photo per line); folders train/ and val/, which hold images/
and masks/ or are in both of them; else a random share of the photos validates.

Masks are PNG files of class ids (8 or 16 bits, a palette, or 0 and 255), or hold colours.
"""

import dataclasses
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from core.data import cache, class_list, colours, images, listing, patches, remarks
from core.data.synthetic import pet_scenes
from core.experiment import IGNORE, Dataset
from core.runtime.errors import InputError

SPLITS = ("train", "val")
GENERATED = 120  # photos
ID_MODES = ("1", "L", "P", "I", "I;16")  # Pillow's modes of PNG files that hold ids


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How photos and masks become examples.

    classes:           `class_list.ClassList`
    ignore:            mask values (ids, or packed colours) of pixels that are left out
    size:              side that photos are resized to, or None
    patch_size:        side of the patches that photos are cut into, or None; one of both is set
    colour_tolerance:  the largest channel difference between a mask pixel and its class
    white_level:       see `images.read_rgb`
    """

    classes: class_list.ClassList
    ignore: tuple = ()
    size: int | None = None
    patch_size: int | None = None
    colour_tolerance: int = 0
    white_level: int = 0


def dataset(preparation, *, val_share, split_seed, data_dir=None):
    """Return the data set of the photos in data_dir, or of generated ones.

    val_share: share of the photos, 0 to 1, in the validation split if data_dir defines no
    splits; split_seed: see `patches.held_out`.
    """
    values = sum(preparation.classes.values, preparation.ignore)
    if len(values) > class_list.MAX_CLASSES:
        raise InputError(
            f"--classes: {len(values)} mask values, at most {class_list.MAX_CLASSES} are possible."
        )
    is_random = data_dir is None or not _has_splits(_root(Path(data_dir)))

    def select(owner, split):
        if is_random:
            return patches.select(owner, split, "image", val_share, split_seed)
        return np.arange(len(owner))

    return Dataset(
        name="own_images",
        find=find,
        read=lambda files, split: _read(*files, preparation),
        settings=dataclasses.asdict(preparation),
        generate=generate,
        check=lambda pixels, files: _check(pixels, files, preparation.classes.names),
        select=select,
        size=preparation.size,
        white_level=preparation.white_level,
    )


def find(data_dir, split):
    """Return the (photo, mask) files of a split, in natural order; all files if the split is random.

    Raises InputError without images/ and masks/, for a photo without a mask, for a line of a
    list that names no photo, and if one of two splits is missing.
    """
    root = _root(data_dir)
    if any((root / f"{each}.txt").is_file() for each in SPLITS):
        return _listed_split(root, split)
    if not _has_splits(root):
        return _pairs(_folder(root, "images"), _folder(root, "masks"))
    if listing.subfolder(root, "train").is_dir():
        part = _folder(root, split)
        return _pairs(_folder(part, "images"), _folder(part, "masks"))
    return _pairs(*(_folder(_folder(root, name), split) for name in ("images", "masks")))


def find_classes(data_dir):
    """Return the `ClassList` of all values in the masks, and a Counter: value -> number of pixels.

    If all masks are PNG files of ids, the classes are the ids, else the colours. Raises
    InputError if there are fewer than 2 or more than 255 values.
    """
    splits = SPLITS if _has_splits(_root(data_dir)) else SPLITS[:1]
    masks = list(dict.fromkeys(mask for split in splits for _, mask in find(data_dir, split)))
    coloured = not all(map(_holds_ids, masks))
    counts = Counter()
    with ThreadPoolExecutor() as pool:
        for values, pixels in pool.map(lambda mask: _count(_mask_values(mask, coloured)), masks):
            counts.update(dict(zip(values.tolist(), pixels.tolist())))
            if len(counts) > class_list.MAX_CLASSES:
                raise InputError(
                    f"{masks[0].parent}: the masks hold more than {class_list.MAX_CLASSES} different"
                    f" {'colours' if coloured else 'ids'}, as after JPEG compression; list the classes in a"
                    " file for --classes, with --colour_tolerance if the colours vary."
                )
    if len(counts) < 2:
        raise InputError(f"{masks[0].parent}: all pixels of the masks have one value; add masks.")
    values = sorted(counts)
    kind = "colour" if coloured else "class"
    names = tuple(f"{kind} {class_list.value_text(value, coloured)}" for value in values)
    return class_list.ClassList(names, tuple((value,) for value in values), coloured), counts


def generated(cache_dir):
    """Return the folder of generated photos and masks; generate them at the first call."""
    no_classes = Preparation(class_list.ClassList((), (), False))
    return cache.generated(dataset(no_classes, val_share=0, split_seed=0), cache_dir)


def generate(folder):
    """Write generated pets as photos and masks of the ids 1, 2 and 3: about 5 MB."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)

    def write(index):
        photo, ids = pet_scenes.scene((2, index))
        Image.fromarray(photo).save(folder / "images" / f"pet_{index + 1}.jpg", quality=92)
        Image.fromarray(ids).save(folder / "masks" / f"pet_{index + 1}.png")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(GENERATED)))


def _root(data_dir):
    """Return data_dir or the folder just below it that holds images/ and masks/, or train/ and val/."""
    for folder in listing.here_and_below(data_dir):
        has_both = all(listing.subfolder(folder, name).is_dir() for name in ("images", "masks"))
        parts = [listing.subfolder(folder, split) for split in SPLITS]
        if has_both or any(listing.subfolder(part, "images").is_dir() for part in parts):
            return folder
    raise InputError(
        f"{data_dir}: no folders images/ and masks/ here or one level down; pass the folder that holds"
        " them as --data_dir."
    )


def _has_splits(root):
    """True if lists or folders define the splits."""
    if any((root / f"{split}.txt").is_file() for split in SPLITS):
        return True
    places = (root, listing.subfolder(root, "images"))
    return any(listing.subfolder(place, split).is_dir() for place in places for split in SPLITS)


def _folder(parent, name):
    folder = listing.subfolder(parent, name)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, but others like it are there; add it.")
    return folder


def _pairs(images_folder, masks_folder):
    """Return [(photo, mask)] of all photos in a folder and its subfolders, in natural order."""
    masks = _by_key(masks_folder)
    pairs = []
    for key, photo in _by_key(images_folder).items():
        mask = masks.pop(key, None)
        if mask is None:
            raise InputError(
                f"{photo}: no mask {masks_folder / key}.png or of another format; add it or remove the photo."
            )
        pairs.append((photo, mask))
    if not pairs:
        raise InputError(f"{images_folder}: no photos in it; put them there.")
    if masks:
        remarks.add(
            f"masks in {masks_folder}", f"{masks_folder}: {len(masks)} masks without a photo are not used"
        )
    return pairs


def _by_key(folder):
    """Map relative paths without suffix to the image files in a folder and its visible subfolders."""
    found, folders = {}, [folder]
    while folders:
        current = folders.pop(0)
        for path in listing.image_files(current):
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                raise InputError(
                    f"{path}: {found[key].name} has the same stem; remove or rename one of them."
                )
            found[key] = path
        below = [path for path in current.iterdir() if path.is_dir() and path.name[0] != "."]
        folders += sorted(below, key=listing.natural_order)
    return found


def _listed_split(root, split):
    """Return the pairs that a split's list names. Raises InputError if train.txt and val.txt overlap."""
    pairs = _pairs(_folder(root, "images"), _folder(root, "masks"))
    listed = {each: _listed(pairs, root / f"{each}.txt", root) for each in SPLITS}
    both = set(listed["train"]) & set(listed["val"])
    if both:
        photo, _ = min(both)
        raise InputError(f"{root / 'val.txt'}: {photo.name} is in train.txt too; remove it from one list.")
    unlisted = len(pairs) - sum(map(len, listed.values()))
    if unlisted:
        remarks.add(
            "unlisted", f"{root}: {unlisted} photos are in neither train.txt nor val.txt and not used"
        )
    return listed[split]


def _listed(pairs, path, root):
    """Return the pairs whose photos a list names, in its order."""
    known = {}
    for photo, mask in pairs:
        for name in {photo.stem, photo.name, *_names_below(photo, root)}:
            known.setdefault(name, []).append((photo, mask))
    chosen = []
    for number, line in listing.lines(path):
        matches = known.get(line.removeprefix("./"), [])
        if len(matches) != 1:
            found = f"{len(matches)} photos have this name" if matches else "there is no such photo"
            raise InputError(f"{path}: line {number}, {line!r}: {found}; correct the line.")
        chosen += matches
    if not chosen:
        raise InputError(f"{path}: the list is empty; name photos in it, one in a line.")
    return list(dict.fromkeys(chosen))


def _names_below(photo, root):
    """Return a photo's paths from the root and from images/, with and without the suffix."""
    from_root = photo.relative_to(root)
    below = Path(*from_root.parts[1:])
    return {each.as_posix() for path in (from_root, below) for each in (path, path.with_suffix(""))}


def _holds_ids(mask_file):
    """True for a PNG file of numbers; files that cannot be opened are reported when they are read."""
    try:
        if not os.path.isfile(mask_file):
            return True
        with Image.open(mask_file, formats=images.FORMATS) as image:
            return image.format == "PNG" and image.mode in ID_MODES
    except Exception:
        return True


def _mask_values(mask_file, coloured):
    """Return the packed colours or the ids of a mask: int32 [H, W]."""
    if coloured:
        return colours.pack(images.read_rgb(mask_file))
    return images.read_wide_class_ids(mask_file)


def _count(values):
    return np.unique(values, return_counts=True)


def _read(photo_file, mask_file, preparation):
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
    """Return the class index of each pixel, or IGNORE: uint8 [H, W]. Raises InputError for other values."""
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
    """Raise InputError that names the most frequent value of no class, if there is one."""
    if not others.size:
        return
    coloured = preparation.classes.coloured
    values, counts = _count(others)
    value = class_list.value_text(values[counts.argmax()], coloured)
    cure = f"add it to --classes, or leave these pixels out with --ignore={value}"
    if coloured:
        cure += ", or take colours that differ a little for the class with --colour_tolerance=N"
    raise InputError(
        f"{mask_file}: {others.size / total:.2%} of the pixels have values of no class, most often {value};"
        f" {cure}."
    )


def _check(pixels, files, names):
    """Print the share of each class; raise InputError if all pixels are ignored."""
    counted, ignored = pixels[: len(names)], pixels[IGNORE]
    if not counted.sum():
        raise InputError(
            f"{files[0][1].parent}: all pixels of the masks are ignored; correct --ignore or --classes."
        )
    print(f"shares of the classes in {counted.sum():,} mask pixels, {ignored:,} more are ignored:")
    for name, count in zip(names, counted):
        print(f"  {name:<30}{count / counted.sum():8.2%}")
        if not count:
            print(f"warning: no pixel of the training masks is {name}; the network cannot learn this class")
