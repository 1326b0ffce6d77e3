"""List the image files in a folder, find files by stem, and read the lines of text files.

Natural order compares runs of digits as numbers: 2.jpg comes before 10.jpg. A stem is a file name
without its last suffix. Files and folders whose names begin with a dot are hidden, as on Unix.
"""

import os
import re
import unicodedata

from core.data import remarks
from core.runtime.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def here_and_below(folder):
    """Return a list with the folder itself, followed by its direct subfolders, sorted by name.

    Hidden subfolders are left out, and so are subfolders that this user cannot list or enter, such as the
    lost+found of a file system. Callers search all of these folders for the data set, because archives often
    contain the data set in a subfolder.
    """
    below = (path for path in folder.glob("*") if path.is_dir() and path.name[0] != ".")
    return [folder, *sorted(path for path in below if os.access(path, os.R_OK | os.X_OK))]


def find_root(data_dir, is_root):
    """Return data_dir if is_root(data_dir) is true, otherwise its direct subfolder with this property.

    is_root: a function of a folder, whose result counts as true or false. Returns None if there is no such
    folder. Raises InputError if several subfolders have this property.
    """
    here, *below = here_and_below(data_dir)
    found = [here] if is_root(here) else list(filter(is_root, below))
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise InputError(f"{data_dir}: holds several data sets ({names}); pass one of them as --data_dir.")
    return found[0] if found else None


def pairs(photos, masks, masks_folder):
    """Match photos with masks; return a list of (photo, mask) in the order of the photos.

    photos, masks: dicts, key -> path. A photo and its mask have the same key. masks_folder: the folder of the
    masks, to which the keys are relative. Masks without a photo are not used. A warning gives their number
    (`core.data.remarks`). Raises InputError if a photo has no mask.
    """
    for key, photo in photos.items():
        if key not in masks:
            raise InputError(
                f"{photo}: no mask {masks_folder / key} with an image suffix; add it or remove the photo."
            )
    unused = len(masks.keys() - photos.keys())
    if unused:
        remarks.add(
            f"masks in {masks_folder}", f"{masks_folder}: {unused} masks without a photo are not used"
        )
    return [(photo, masks[key]) for key, photo in photos.items()]


def subfolders(folder):
    """Return a list of the direct subfolders of a folder that are not hidden, in natural order."""
    below = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return sorted(below, key=natural_order)


def subfolder(folder, name):
    """Return the path of the subfolder with this name. The letter case of the name may differ.

    A subfolder with exactly this name is preferred. If it does not exist, and several subfolders have the
    name in different letter cases, raises InputError. If no subfolder matches, returns the path
    `folder / name`.
    """
    if not folder.is_dir():
        return folder / name
    # the names are compared, because on some file systems is_dir() is true in any letter case
    alike = [path for path in folder.iterdir() if path.name.lower() == name.lower() and path.is_dir()]
    if not alike or folder / name in alike:
        return folder / name
    if len(alike) > 1:
        names = " and ".join(sorted(path.name for path in alike))
        raise InputError(f"{folder}: both {names} could be {name}/; rename one of them.")
    return alike[0]


def image_files(folder):
    """Return a list of the paths of a folder's image files in natural order. Hidden files are left out.

    A file is an image file if its name ends with one of SUFFIXES, in any letter case. If the folder holds
    other visible files, a warning gives their number (`core.data.remarks`).

    Raises InputError if the folder cannot be listed. Also raises InputError if a name with one of
    SUFFIXES belongs to a folder, a pipe or a dangling link.
    """
    try:
        visible = [path for path in folder.iterdir() if path.name[0] != "."]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}); correct the path or make the folder readable."
        ) from None
    paths = sorted((path for path in visible if path.suffix.lower() in SUFFIXES), key=natural_order)
    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"{path}: not a file, nor a link to one; remove or rename it.")
    others = sorted(path.name for path in set(visible) - set(paths) if not path.is_dir())
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        remarks.add(f"other files in {folder}", f"{folder}: {len(others)} other files are not used ({shown})")
    return paths


def by_stem(paths):
    """Return a dict of the given paths: stem -> path. The stems are normalised by `composed`.

    Raises InputError if two paths have the same stem.
    """
    found = {}
    for path in paths:
        stem = composed(path.stem)
        if stem in found:
            raise InputError(
                f"{path}: {found[stem].name} has the same name before the suffix; remove or rename one."
            )
        found[stem] = path
    return found


def composed(name):
    """Return a file name in the Unicode normal form NFC, in which an accented letter is one character.

    macOS may store file names in the normal form NFD, in which the letter and its accent are two characters.
    """
    return unicodedata.normalize("NFC", name)


def find_by_stem(folder, stem, suffix):
    """Return the path of the image file with this stem in a folder.

    Besides `stem` itself, its Unicode forms NFC and NFD are tried. A file with exactly this suffix is
    preferred. If it does not exist, the file with another suffix in SUFFIXES, in lower case or upper case, is
    returned. If there are several files with such suffixes, raises InputError. If there is none, returns the
    path of the missing file, `folder / (stem + suffix)`.
    """
    stems = dict.fromkeys([stem, *(unicodedata.normalize(form, stem) for form in ("NFC", "NFD"))])
    usual = [folder / f"{each}{suffix}" for each in stems]
    for path in usual:
        if os.path.isfile(path):
            return path
    others = [each for lower in SUFFIXES for each in (lower, lower.upper())]
    names = [f"{each}{other}" for each in stems for other in others]
    candidates = [folder / name for name in names if os.path.isfile(folder / name)]
    # A file system that ignores letter case or Unicode forms finds one file under several of these names.
    # These paths have the same inode number, so one of them is kept.
    found = list({path.stat().st_ino: path for path in reversed(candidates)}.values())[::-1]
    if len(found) > 1:
        raise InputError(
            f"{found[0]}: {found[1].name} has the same name before the suffix; remove or rename one."
        )
    return found[0] if found else usual[0]


def lines(path):
    """Return the lines of a text file: a list of (line number, text).

    Lines that are empty or begin with # are left out. Line numbers begin with 1. White space at both ends of
    a line is removed. Raises InputError if the file is missing or not UTF-8 text.
    """
    try:
        if not os.path.isfile(path):  # reading a pipe would block
            raise OSError("no such file")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error}); correct or restore it.") from None
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in numbered if line and line[0] != "#"]


def natural_order(path):
    """Return the sort key of a path, for sorting paths by file name in natural order."""
    name = composed(path.name)
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name
