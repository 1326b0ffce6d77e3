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

MAX_PIXELS = 2**29  # an image with more pixels is not decoded; Pillow needs 4 bytes per pixel, here 2 GiB


@dataclasses.dataclass(frozen=True)
class Source:
    """An image to segment: a file, or one page of a file.

    path:    the file.
    page:    the index of the page in the file, from 0, for `images.read_rgb`.
    number:  the page number that is shown to the user, from 1; None if the file has one page. It counts
             full-size pages only, so it may differ from page + 1.
    """

    path: Path
    page: int = 0
    number: int | None = None

    @property
    def key(self):
        """(absolute path, number), which identifies the image in `records.Records.names`."""
        return os.path.abspath(self.path), self.number

    def name(self, folders):
        """Return a name for the image's result files.

        folders: 0: the name is the file name without its suffix. k > 0: the name is the last k parts of
        the absolute path, such as "a/photo.png" for k = 2. "_page_" and the page number are appended if
        the file has several pages.
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
    crop:           a function that returns a part of the image:
                    (top, left, bottom, right) -> uint8 [bottom - top, right - left, 3], RGB.
    pixels:         the network's input, uint8 [h, w, 3]: the image, resized if the network needs that.
                    None if the image is processed in tiles.
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
    """Return a `Source` for each page of each image file that the arguments name.

    arguments: paths of files and folders. A folder stands for the image files directly inside it. If
    recursive is True, it also stands for the image files in its visible subfolders at any depth.
    Pictures that `predict` wrote earlier are left out. Prints their number, and which subfolders were not
    searched. A path that does not exist is kept, so that `read` reports the error.
    Raises InputError if there is no image.
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
    """Return a dict that maps each `Source` to a unique name for its result files.

    The name is the file name without its suffix, if no other image has the same name. Otherwise the name is
    the file name, preceded by as many parent folders as make it unique; if no parent folders do, a number is
    appended. Names that differ only in letter case count as equal, because some file systems ignore case.
    earlier: `Source.key` -> name, for results that are already in the output folder. An image with an
    earlier name keeps that name. No other image gets it.
    """
    earlier = earlier or {}
    names = {source: earlier[source.key] for source in sources if source.key in earlier}
    fresh = [source for source in sources if source not in names]
    used = collections.Counter(name.casefold() for name in earlier.values())
    depth, most = dict.fromkeys(fresh, 0), {source: source.key[0].count(os.sep) for source in fresh}
    while True:
        names |= {source: source.name(depth[source]) for source in fresh}
        counts = used + collections.Counter(names[source].casefold() for source in fresh)
        alike = [source for source in fresh if counts[names[source].casefold()] > 1]
        deeper = [source for source in alike if depth[source] < most[source]]
        if not deeper:  # all names differ, or more parent folders cannot make them differ
            return names | _numbered(alike, names, set(counts))
        for source in deeper:
            depth[source] += 1


def read(source, name, *, resize, resample, tile, white_level):
    """Decode or memory-map an image and return it as a `Photo`.

    source: its `Source`. name: the name of its result files.
    resize: the network's input is the image scaled to resize x resize pixels with the filter `resample`.
    None: the input is the image at its own size. Then an image of more than tile x tile pixels is
    processed in tiles, and its file is memory-mapped if `images.map_rgb` supports it.
    white_level: as for `images.read_rgb`.
    Raises InputError that names the file if the file cannot be decoded.
    """
    path = source.path
    large = not resize and source.page == 0 and read_ahead.pixel_count(path) > tile**2
    mapped = images.map_rgb(path) if large else None
    if mapped is not None:
        return Photo(source, name, *mapped.shape[:2], _crop_array(mapped), pixels=None)
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
    """Yield the paths of a folder's image files; print which subfolders are not searched."""
    yield from listing.image_files(folder)
    below = sorted(
        (path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."),
        key=listing.natural_order,
    )
    if below and not recursive:
        more = f" and {len(below) - 1} more subfolders" if len(below) > 1 else ""
        print(f"not searched without --recursive: {below[0]}{more}")
    for path in below if recursive else ():
        if not path.is_symlink():  # a link may lead back to a folder above
            yield from _in_folder(path, recursive)


def _pages(path):
    """Return the `Source`s of a file, one per page."""
    pages = images.pages(path) if path.is_file() else [0]
    if len(pages) == 1:
        return [Source(path, pages[0])]
    return [Source(path, page, number) for number, page in enumerate(pages, 1)]


def _numbered(sources, names, used):
    """Make names unique by appending "-" and a number; return a dict, source -> new name.

    sources: the sources whose `names` are not unique. used: all names so far, in lower case; the new names
    are added.
    """
    numbered = {}
    for source in sources:
        candidates = (f"{names[source]}-{number}" for number in itertools.count(1))
        numbered[source] = next(name for name in candidates if name.casefold() not in used)
        used.add(numbered[source].casefold())
    return numbered


def _crop_array(array):
    """Return the function `Photo.crop` for an array [H, W, 3]."""
    return lambda top, left, bottom, right: np.asarray(array[top:bottom, left:right])


def _crop_image(image):
    """Return the function `Photo.crop` for a PIL image."""
    return lambda top, left, bottom, right: np.asarray(image.crop((left, top, right, bottom)))
