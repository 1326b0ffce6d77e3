"""List the image files of folders in natural order, find files by stem, and read text files by line.

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
    """Return a list of the folder and its subfolders that are not hidden, subfolders sorted by name.

    Callers search all of them, because archives often contain the data set in a subfolder.
    """
    below = (path for path in folder.glob("*") if path.is_dir() and path.name[0] != ".")
    return [folder, *sorted(below)]


def subfolder(folder, name):
    """Return the subfolder with this name, or else a subfolder whose name differs only in letter case.

    Returns the path `folder / name` if no subfolder matches. Raises InputError if none has exactly this
    name and several differ only in letter case.
    """
    if (folder / name).is_dir() or not folder.is_dir():
        return folder / name
    alike = [path for path in folder.iterdir() if path.name.lower() == name.lower() and path.is_dir()]
    if len(alike) > 1:
        names = " and ".join(sorted(path.name for path in alike))
        raise InputError(f"{folder}: both {names} could be {name}/; rename one of them.")
    return alike[0] if alike else folder / name


def image_files(folder, suffixes=SUFFIXES):
    """Return the files of a folder that have one of the suffixes, in natural order, without hidden files.

    The letter case of suffixes is ignored. A remark counts the files with other suffixes. Raises
    InputError if the folder cannot be listed, and if a folder, pipe or dangling link has one of the
    suffixes.
    """
    try:
        visible = [path for path in folder.iterdir() if path.name[0] != "."]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}); correct the path or make the folder readable."
        ) from None
    paths = sorted((path for path in visible if path.suffix.lower() in suffixes), key=natural_order)
    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"{path}: not a file, nor a link to one; remove or rename it.")
    others = sorted(path.name for path in set(visible) - set(paths) if not path.is_dir())
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        remarks.add(f"other files in {folder}", f"{folder}: {len(others)} other files are not used ({shown})")
    return paths


def by_stem(paths):
    """Return a dict: stem -> path. The stems are normalised by `composed`.

    Raises InputError if two files have the same stem.
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

    macOS may store file names in the form NFD, in which letter and accent are two characters.
    """
    return unicodedata.normalize("NFC", name)


def find_by_stem(folder, stem, suffix):
    """Return the path of the image file with this stem and suffix, or else with another image suffix.

    Returns the path `folder / (stem + suffix)` if there is no such file. Raises InputError if no file has
    the suffix and several image files have the stem.
    """
    usual = folder / f"{stem}{suffix}"
    if os.path.isfile(usual):
        return usual
    names = [f"{stem}{each}" for lower in SUFFIXES for each in (lower, lower.upper())]
    candidates = [folder / name for name in names if os.path.isfile(folder / name)]
    # a case-insensitive file system finds the same file under both spellings of its suffix
    found = list({path.stat().st_ino: path for path in reversed(candidates)}.values())[::-1]
    if len(found) > 1:
        raise InputError(
            f"{found[0]}: {found[1].name} has the same name before the suffix; remove or rename one."
        )
    return found[0] if found else usual


def lines(path):
    """Return [(line number, text)] of a text file, without empty lines and lines that begin with #.

    Raises InputError if the file is missing or not UTF-8 text.
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
    """Return a key that sorts paths by file name in natural order."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
