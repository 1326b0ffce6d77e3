"""The image files to predict: which files, the names of their results, and their pixels."""

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from core.data import images, listing
from core.runtime.errors import InputError

MAX_PIXELS = 2**29  # the most pixels of an image that is decoded whole: 2 GiB of memory


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image file, open for reading.

    path:    the image file.
    name:    the name of its results, from `output_names`.
    height:  of the image, in pixels, as is width.
    crop:    a function (top, left, bottom, right) -> uint8 [bottom - top, right - left, 3].
    pixels:  the network's input, uint8 [h, w, 3]; None if the image is processed in tiles.
    """

    path: os.PathLike
    name: str
    height: int
    width: int
    crop: Callable
    pixels: np.ndarray | None

    @property
    def area(self):
        """Number of pixels of the image."""
        return self.height * self.width


def find(arguments):
    """List the image files among paths of files and folders, each file once.

    Folders contribute the image files directly inside them. A path that does not exist is
    kept, so that reading it reports the error. Raises InputError if there is no image.
    """
    found = itertools.chain.from_iterable(
        listing.image_files(path) if path.is_dir() else [path] for path in arguments
    )
    paths = list({os.path.abspath(path): path for path in found}.values())
    if not paths:
        raise InputError("no images: name image files, or folders that hold some.")
    return paths


def output_names(paths):
    """Map each path to the name of its results; the names differ even if letter case is ignored.

    The name is the file's stem if no other file has the same stem. Otherwise it is the file
    name, preceded by as many parent folders as needed to tell it from the other files.
    """
    parts = {path: os.path.abspath(path).split(os.sep) for path in paths}
    depth = dict.fromkeys(paths, 0)
    while True:
        names = {path: "/".join(parts[path][-depth[path] :]) if depth[path] else path.stem for path in paths}
        counts = collections.Counter(name.casefold() for name in names.values())
        alike = [path for path, name in names.items() if counts[name.casefold()] > 1]
        deeper = [path for path in alike if depth[path] < len(parts[path]) - 1]
        if not deeper:  # no names are equal, or the whole paths differ only in letter case
            return names | {path: f"{names[path]}-{n}" for n, path in enumerate(alike, 1)}
        for path in deeper:
            depth[path] += 1


def area(path):
    """Width times height from the file's header; 0 if the header cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would block
            return 0
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # decoding reports what is wrong with the file
        return 0


def read(path, name, *, resize, resample, tile, white_level=0):
    """Open an image file as a `Photo`.

    resize: side to which the network's input is scaled, by the filter resample, or None for
    the image's own size. An image of more than tile x tile pixels is then processed in tiles:
    its file is memory-mapped if it is uncompressed, and decoded whole if not. Raises
    InputError that names the file if it cannot be decoded. white_level: see `images.read_rgb`.
    """
    mapped = images.map_rgb(path) if not resize and area(path) > tile**2 else None
    if mapped is not None:
        return Photo(path, name, *mapped.shape[:2], _crop_array(mapped), pixels=None)
    try:
        image = images.read_rgb(path, max_pixels=MAX_PIXELS, white_level=white_level)
    except MemoryError:
        raise InputError(f"{path}: too large for this machine's memory; scale it down.") from None
    pixels = None
    if resize:
        pixels = np.asarray(image.resize((resize, resize), resample))
    elif image.width * image.height <= tile**2:
        pixels = np.asarray(image)
    return Photo(path, name, image.height, image.width, _crop_image(image), pixels)


def _crop_array(array):
    """`Photo.crop` of an array [H, W, 3]."""
    return lambda top, left, bottom, right: np.asarray(array[top:bottom, left:right])


def _crop_image(image):
    """`Photo.crop` of a PIL image."""
    return lambda top, left, bottom, right: np.asarray(image.crop((left, top, right, bottom)))
