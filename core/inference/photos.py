"""Images to predict: find their files and pages, name their results, and read their pixels."""

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

MAX_PIXELS = 2**29  # the largest image, in pixels, that is decoded as a whole: 2 GiB of memory


@dataclasses.dataclass(frozen=True)
class Source:
    """An image to segment: a file, or one page of a file.

    path:    the file.
    page:    index of the page, for `images.read_rgb`.
    number:  position among the file's pages, from 1; None if the file has one page.
    """

    path: Path
    page: int = 0
    number: int | None = None

    @property
    def key(self):
        """(absolute path, number): identifies the image in `records.Records.names`."""
        return os.path.abspath(self.path), self.number

    def name(self, folders):
        """Return the name of the image's results: the stem, or the last `folders` parts of the path."""
        parts = os.path.abspath(self.path).split(os.sep)
        name = "/".join(parts[-folders:]) if folders else self.path.stem
        return name if self.number is None else f"{name}_page_{self.number:03}"


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image, open for reading.

    source:  the `Source` of the image.
    name:    the name of its results, from `output_names`.
    height:  height of the image in pixels; `width` is its width.
    crop:    a function (top, left, bottom, right) -> uint8 [bottom - top, right - left, 3].
    pixels:  the network's input, uint8 [h, w, 3]; None if the image is processed in tiles.
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
    """Return a `Source` for each page of each image file in paths, which are files and folders.

    For a folder, the image files directly inside it are used and, if recursive, those inside its
    visible subfolders. Pictures written by `predict` are left out. Prints how many were left out and
    which subfolders were not searched. A path that does not exist is kept, so that reading it reports
    the error. Raises InputError if there is no image.
    """
    found = itertools.chain.from_iterable(
        _in_folder(path, recursive) if path.is_dir() else [path] for path in arguments
    )
    paths = list({os.path.abspath(path): path for path in found}.values())
    results = {path for path in paths if outputs.is_result(path)}
    if results:
        print(f"left out {len(results)} results of earlier predictions, such as {min(results)}")
    sources = [source for path in paths if path not in results for source in _pages(path)]
    if not sources:
        raise InputError("no images found; pass image files, or folders that contain image files.")
    return sources


def output_names(sources, earlier=None):
    """Map each source to the name of its results; names differ even if letter case is ignored.

    The name is the file's stem if no other file has the same stem; otherwise it is the file name,
    preceded by as many parent folders as needed. earlier: the names of results that are already in
    the output folder, by `Source.key`: the same image keeps its name, other images get other names.
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
        if not deeper:  # all names differ, or the whole paths differ only in letter case
            return names | _numbered(alike, names, set(counts))
        for source in deeper:
            depth[source] += 1


def read(source, name, *, resize, resample, tile, white_level):
    """Open an image as a `Photo`.

    resize: side that the network's input is scaled to, with the filter resample; None for the
    image's own size. With None, an image of more than tile x tile pixels is processed in tiles:
    its file is memory-mapped if uncompressed, otherwise decoded as a whole. white_level: as for
    `images.read_rgb`. Raises InputError that names the file if it cannot be decoded.
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
    """Yield the image files of a folder; print which subfolders are not searched."""
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
    """Return new names, with a number, for sources with equal names. used: existing names in lower case."""
    numbered = {}
    for source in sources:
        candidates = (f"{names[source]}-{number}" for number in itertools.count(1))
        numbered[source] = next(name for name in candidates if name.casefold() not in used)
        used.add(numbered[source].casefold())
    return numbered


def _crop_array(array):
    """Implement `Photo.crop` for an array [H, W, 3]."""
    return lambda top, left, bottom, right: np.asarray(array[top:bottom, left:right])


def _crop_image(image):
    """Implement `Photo.crop` for a PIL image."""
    return lambda top, left, bottom, right: np.asarray(image.crop((left, top, right, bottom)))
