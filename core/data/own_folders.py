"""Find pairs of photos and masks in the user's own folders, and split them into training and validation.

    images/...            photos of any format that `core.data.images` can read; subfolders are searched
    masks/...             for each photo, a mask with the same relative path, except for the suffix

The user can define the two splits, "train" and "val", in three ways. If several of them exist, the first one
in this list is used:

    train.txt, val.txt                                      lists, see below
    train/images/, train/masks/, val/images/, val/masks/
    images/train/, images/val/, masks/train/, masks/val/

If none of them exists, a random share of the photos is used for validation (`core.data.patches.select`).

A line of a list holds a photo's file name, its stem, or its path relative to images/ or to the folder that
holds images/. A stem is a file name without its last suffix.
"""

from pathlib import Path

from core.data import listing, remarks
from core.runtime.errors import InputError

SPLITS = ("train", "val")


def find(data_dir, split):
    """Return a list of (photo, mask) files for a split, "train" or "val".

    If a text file lists the split, the pairs have the order of the list, otherwise the order of `_pairs`.
    If data_dir defines no splits, the function returns all pairs for each split.

    Raises InputError in these cases: images/ or masks/ is missing; there is no photo; a photo has no mask; a
    line of a list does not name exactly one photo; a list is empty; both lists name the same photo; one of
    the two lists, or a folder of this split, is missing; `_root` raises it.
    """
    root = _root(data_dir)
    if any((root / f"{each}.txt").is_file() for each in SPLITS):
        return _listed_split(root, split)
    if not _has_splits(root):
        return _pairs(_folder(root, "images"), _folder(root, "masks"))
    if any(listing.subfolder(root, each).is_dir() for each in SPLITS):
        part = _folder(root, split)
        return _pairs(_folder(part, "images"), _folder(part, "masks"))
    return _pairs(*(_folder(_folder(root, name), split) for name in ("images", "masks")))


def _root(data_dir):
    """Return the folder of the data set: data_dir itself, or else one of its direct subfolders.

    The folder of a data set holds both images/ and masks/, or it holds train/images/ or val/images/. Raises
    InputError if there is no such folder, if several subfolders are such folders, or if data_dir holds a list
    but a subfolder holds the data set.
    """
    root = listing.find_root(data_dir, _is_root)
    if not root:
        raise InputError(
            f"{data_dir}: no folders images/ and masks/ here or one level down; pass the folder that holds"
            " them as --data_dir."
        )
    for name in (f"{split}.txt" for split in SPLITS):
        if root != data_dir and (data_dir / name).is_file():
            raise InputError(
                f"{data_dir / name}: not used, because the data set is in {root}; move this file into that"
                " folder, or pass that folder as --data_dir."
            )
    return root


def _is_root(folder):
    """True if the folder holds both images/ and masks/, or holds train/images/ or val/images/."""
    has_both = all(listing.subfolder(folder, name).is_dir() for name in ("images", "masks"))
    parts = [listing.subfolder(folder, split) for split in SPLITS]
    return has_both or any(listing.subfolder(part, "images").is_dir() for part in parts)


def has_splits(data_dir):
    """True if lists or folders in data_dir define the splits.

    Raises InputError if `_root` does.
    """
    return _has_splits(_root(data_dir))


def _has_splits(root):
    """True if lists or folders in root define the splits. root: the folder that `_root` returns."""
    if any((root / f"{split}.txt").is_file() for split in SPLITS):
        return True
    places = (root, listing.subfolder(root, "images"))
    return any(listing.subfolder(place, split).is_dir() for place in places for split in SPLITS)


def _folder(parent, name):
    """Return the path of a subfolder. Raises InputError if it is missing."""
    folder = listing.subfolder(parent, name)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: this folder is missing, but other folders of the data set exist; add it."
        )
    return folder


def _pairs(images_folder, masks_folder):
    """Return a list of (photo, mask) for all photos in images_folder and its subfolders.

    The photos of a folder come before the photos of its subfolders. Photos of one folder, and subfolders of
    one folder, are in natural order.
    Raises InputError if there is no photo, or if `listing.pairs` does.
    """
    pairs = listing.pairs(_by_key(images_folder), _by_key(masks_folder), masks_folder)
    if not pairs:
        raise InputError(
            f"{images_folder}: no file with one of the suffixes {' '.join(listing.SUFFIXES)}; put photos"
            " there, or convert them to one of these formats."
        )
    return pairs


def _by_key(folder):
    """Return a dict of the image files in a folder and all its subfolders: key -> path.

    The key is the path relative to the folder, without the suffix. Hidden files and hidden subfolders are
    left out. Raises InputError if two files have the same key.
    """
    found, folders = {}, [folder]
    while folders:
        current = folders.pop(0)
        for path in listing.image_files(current):
            key = listing.composed(path.relative_to(folder).with_suffix("").as_posix())
            if key in found:
                raise InputError(
                    f"{path}: {found[key].name} has the same stem; remove or rename one of them."
                )
            found[key] = path
        folders += listing.subfolders(current)
    return found


def _listed_split(root, split):
    """Return a list of the (photo, mask) pairs whose photos are named in the list of a split.

    The lists are root/train.txt and root/val.txt. Photos that are in neither list are not used. A warning
    gives their number (`core.data.remarks`). Raises InputError if both lists name the same photo, and in the
    cases that `_listed` describes.
    """
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
    """Return the (photo, mask) pairs whose photos are named in a list, in the order of the list.

    pairs: all pairs. path: the text file with the list. root: the folder of the data set. A line names
    a photo by its file name, its stem or a path from `_names_below`, in any Unicode normal form. A pair that
    is named twice is returned once. Raises InputError if the list is empty, or if a line does not name
    exactly one photo.
    """
    known = {}
    for photo, mask in pairs:
        for name in set(map(listing.composed, (photo.stem, photo.name, *_names_below(photo, root)))):
            known.setdefault(name, []).append((photo, mask))
    chosen = []
    for number, line in listing.lines(path):
        matches = known.get(listing.composed(line.removeprefix("./")), [])
        if len(matches) != 1:
            found = f"{len(matches)} photos have" if matches else "no photo in images/ has"
            raise InputError(f"{path}: line {number}, {line!r}: {found} this name or path; correct the line.")
        chosen += matches
    if not chosen:
        raise InputError(f"{path}: the list is empty; name photos in it, one in a line.")
    return list(dict.fromkeys(chosen))


def _names_below(photo, root):
    """Return a set of four relative paths by which a list can name a photo.

    For root/images/a/b.jpg, the four paths are images/a/b.jpg, images/a/b, a/b.jpg and a/b.
    """
    from_root = photo.relative_to(root)
    below = Path(*from_root.parts[1:])
    return {each.as_posix() for path in (from_root, below) for each in (path, path.with_suffix(""))}
