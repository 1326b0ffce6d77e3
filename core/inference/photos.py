"""Find the images to segment, choose the names of their result files, and read their pixels."""

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.data import images, listing, read_ahead
from core.inference import outputs
from core.runtime.errors import InputError

MAX_PIXELS = 2**29  # larger images are not decoded; Pillow needs 4 bytes per pixel: 2 GiB for this limit


@dataclasses.dataclass(frozen=True)
class Source:
    """An image to segment: a file, or one page of a file.

    path:    the file.
    page:    the index of the page in the file, from 0, for `images.read_rgb`.
    number:  the page number that is shown to the user, from 1. Only the pages that `images.pages` returns
             are counted, so number may differ from page + 1. If there is a single such page, number is None.
    """

    path: Path
    page: int = 0
    number: int | None = None

    @property
    def key(self):
        """The pair (absolute path, number), the key of the image in the dict from `records.Records.names`."""
        return os.path.abspath(self.path), self.number

    def name(self, folders):
        """Return a name for the image's result files.

        folders: a number k. If k is 0, the name is the file name without its suffix. If k is above 0, the
        name is the last k parts of the absolute path, such as "a/photo.png" for k = 2. If the file has
        several pages, "_page_" and the page number are appended.
        """
        parts = os.path.abspath(self.path).split(os.sep)
        name = "/".join(parts[-folders:]) if folders else self.path.stem
        return name if self.number is None else f"{name}_page_{self.number:03}"


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image that is decoded or memory-mapped.

    source:         the `Source` of the image.
    name:           the name of the image's result files, from `output_names`.
    height, width:  the size of the image in pixels.
    crop:           a function that returns a part of the image at its own size:
                    (top, left, bottom, right) -> uint8 [bottom - top, right - left, 3], RGB.
    pixels:         the input of the network, uint8 [h, w, 3], RGB: the whole image, or the resized image if
                    `read` was called with `resize`. None if the image is processed in tiles.
    """

    source: Source
    name: str
    height: int
    width: int
    crop: Callable
    pixels: np.ndarray | None

    @property
    def area(self):
        """The number of pixels of the image."""
        return self.height * self.width


def find(arguments, *, recursive=False):
    """Find image files; return a list of `Source`s, one for each page of each file.

    arguments: a list of paths of files and folders. A folder stands for the image files directly inside it.
    recursive: if True, a folder also stands for the image files in its subfolders at any depth. Hidden
    subfolders and links to folders are not searched.
    Pictures that `predict` wrote earlier are left out, and the number of these pictures is printed. For each
    folder whose subfolders are not searched, a printed line names one subfolder and counts the others. A path
    that does not exist gets a `Source` too, so that `read` reports the error.
    Raises InputError if there is no image, or if `listing.image_files` raises it for a folder.
    """
    found = itertools.chain.from_iterable(
        _in_folder(path, recursive) if path.is_dir() else [path] for path in arguments
    )
    paths = list({os.path.abspath(path): path for path in found}.values())
    results = {path for path in paths if outputs.is_result(path)}
    if results:
        print(f"left out {len(results)} results of earlier predictions, for example {min(results)}")
    sources = [source for path in paths if path not in results for source in _pages(path)]
    if not sources:
        raise InputError("no images found; pass image files, or folders that contain image files.")
    return sources


def output_names(sources, earlier=None):
    """Choose unique names for the result files of images; return a dict, `Source` -> name.

    The name of an image is the first name in this list that no other image has:
    1. the file name without its suffix,
    2. the file name with its suffix,
    3. the file name with its suffix, after as few parent folders as possible, such as "a/photo.png",
    4. the file name with its suffix, after all parent folders, with a number appended.
    If the file has several pages, `Source.name` appends the page number to the file name.
    Names that differ only in letter case or in their Unicode form count as equal, because some file systems
    ignore these differences.
    sources: a list of `Source`s. earlier: `Source.key` -> name, for images whose results are already in the
    output folder. These images keep their names, and no other image gets one of these names.
    """
    earlier = earlier or {}
    names = {source: earlier[source.key] for source in sources if source.key in earlier}
    fresh = [source for source in sources if source not in names]
    used = collections.Counter(_folded(name) for name in earlier.values())
    depth, most = dict.fromkeys(fresh, 0), {source: source.key[0].count(os.sep) for source in fresh}
    while True:
        names |= {source: source.name(depth[source]) for source in fresh}
        counts = used + collections.Counter(_folded(names[source]) for source in fresh)
        alike = [source for source in fresh if counts[_folded(names[source])] > 1]
        deeper = [source for source in alike if depth[source] < most[source]]
        if not deeper:  # all names differ, or more parent folders cannot make them differ
            return names | _numbered(alike, names, set(counts))
        for source in deeper:
            depth[source] += 1


def read(source, name, *, resize, resample, tile, white_level):
    """Decode or memory-map an image and return it as a `Photo`.

    source: the `Source` of the image. name: the name of the image's result files.
    resize: the network's input is the image scaled to resize x resize pixels with the Pillow filter
    `resample`. None: the input is the image at its own size.
    tile: if resize is None, an image of more than tile x tile pixels is processed in tiles. Such an image is
    memory-mapped if it is the first page of its file and `images.map_rgb` supports the file.
    white_level: as for `images.read_rgb`.
    Raises InputError, with the name of the file, if the image cannot be decoded. Also raises InputError if an
    image that is not memory-mapped has more than MAX_PIXELS pixels.
    """
    path = source.path
    pixel_count = 0 if resize or source.page else read_ahead.pixel_count(path)
    large = pixel_count > tile**2
    mapped = images.map_rgb(path) if large else None
    if mapped is not None:
        return Photo(source, name, *mapped.shape[:2], _crop_array(mapped), pixels=None)
    if large and pixel_count > MAX_PIXELS:
        raise InputError(
            f"{path}: has more than {MAX_PIXELS:,} pixels; save it as an uncompressed 8-bit RGB TIFF file,"
            " which is read tile by tile, or cut it into smaller files."
        )
    try:
        image = images.read_rgb(path, max_pixels=MAX_PIXELS, white_level=white_level, page=source.page)
    except MemoryError:
        raise InputError(f"{path}: too large for this machine's memory; scale it down.") from None
    pixels = None
    if resize:
        pixels = np.asarray(image.resize((resize, resize), resample))
    elif image.width * image.height <= tile**2:
        pixels = np.asarray(image)
    return Photo(source, name, image.height, image.width, _crop_image(image), pixels)


def _in_folder(folder, recursive):
    """Yield the image files of a folder. The docstring of `find` describes how subfolders are treated."""
    yield from listing.image_files(folder)
    below = listing.subfolders(folder)
    if below and not recursive:
        more = f" and {len(below) - 1} more subfolders" if len(below) > 1 else ""
        print(f"not searched without --recursive: {below[0]}{more}")
    for path in below if recursive else ():
        if not path.is_symlink():  # a link to a parent folder would cause an endless search
            yield from _in_folder(path, recursive)


def _pages(path):
    """Return the list of the `Source`s of a file, one per page. path: the file, which may be missing."""
    pages = images.pages(path) if path.is_file() else [0]
    if len(pages) == 1:
        return [Source(path, pages[0])]
    return [Source(path, page, number) for number, page in enumerate(pages, 1)]


def _folded(name):
    """Return a name in lower case and in the Unicode form NFC, for comparisons of names."""
    return listing.composed(name).casefold()


def _numbered(sources, names, used):
    """Make names unique by appending "-" and a number; return a dict, `Source` -> new name.

    sources: the `Source`s whose names are not unique. names: `Source` -> name. used: the set of the results
    of `_folded` for all names that are taken; the function adds the new names to it.
    """
    numbered = {}
    for source in sources:
        candidates = (f"{names[source]}-{number}" for number in itertools.count(1))
        numbered[source] = next(name for name in candidates if _folded(name) not in used)
        used.add(_folded(numbered[source]))
    return numbered


def _crop_array(array):
    """Return the function for `Photo.crop` that reads from an array, uint8 [H, W, 3]."""
    return lambda top, left, bottom, right: np.asarray(array[top:bottom, left:right])


def _crop_image(image):
    """Return the function for `Photo.crop` that reads from a PIL image of mode RGB."""
    return lambda top, left, bottom, right: np.asarray(image.crop((left, top, right, bottom)))
