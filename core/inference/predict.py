"""Image files in, class ids, colours and overlays out, each at its image's own size.

Files are decoded and written in threads beside the network. A large image goes
through it by the tile, and out by the strip. Pillow decodes a file whole, at four
bytes a pixel; uncompressed TIFF and PPM files are read by the tile too.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from core.data import images
from core.inference import png, tiling
from core.inference.evaluate import make_predict
from core.runtime import files, progress
from core.runtime.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MAX_PIXELS = 2**29  # of an image that is decoded whole: 2 GiB in memory
PIXELS_AHEAD = 2**25  # decoded or to be written beside the network; a larger image goes alone
IMAGES_AHEAD = 256
PARTS = ("labels", "colours", "overlay")
STRIP = 512  # rows made at once of what is scaled up


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image file.

    crop:    (top, left, bottom, right) -> uint8 [bottom - top, right - left, 3]
    pixels:  what the network takes, uint8 [h, w, 3]; None if by the tile
    """

    path: os.PathLike
    name: str
    height: int
    width: int
    crop: Callable
    pixels: np.ndarray | None


def find(arguments):
    """The image files that paths of files and folders stand for, each once.

    A path that does not exist is kept: reading says what is wrong with it. Raises
    InputError if there is no image.
    """
    found = itertools.chain.from_iterable(
        images.image_files(path, SUFFIXES) if path.is_dir() else [path] for path in arguments
    )
    paths = list({os.path.abspath(path): path for path in found}.values())
    if not paths:
        raise InputError("no images: name image files, or folders that hold some.")
    return paths


def output_names(paths):
    """A name for what is made of each file, path -> text: no two alike, letter case aside.

    The stem where one file has it, else its name, else as many of the folders above
    it, as folders, as tell it from the others.
    """
    parts = {path: os.path.abspath(path).split(os.sep) for path in paths}
    depth = dict.fromkeys(paths, 0)
    while True:
        names = {path: "/".join(parts[path][-depth[path] :]) if depth[path] else path.stem for path in paths}
        counts = collections.Counter(name.casefold() for name in names.values())
        alike = [path for path, name in names.items() if counts[name.casefold()] > 1]
        deeper = [path for path in alike if depth[path] < len(parts[path]) - 1]
        if not deeper:  # none alike, or in nothing but letter case
            return names | {path: f"{names[path]}-{n}" for n, path in enumerate(alike, 1)}
        for path in deeper:
            depth[path] += 1


def run(experiment, weights, dtype, paths, output_dir, *, resize, tile, flip):
    """Segment image files into output_dir; 0, or 1 if some could not be read.

    resize: the side that images are scaled to for the network, and the result back
    from; None for their own size. An image of more than tile x tile pixels then
    goes in tiles, whose overlap makes the result that of the whole image.
    For each NAME of `output_names`, NAME_labels.png holds class ids, NAME_colours.png
    their palette, NAME_overlay.png photo and colours; shares.jsonl a line for each.
    Raises InputError where output_dir cannot be written or an image would be written
    over, and for too small a tile.
    """
    multiple = tiling.multiple(experiment.forward, weights)
    forward = tiling.mirrored(experiment.forward) if flip else experiment.forward
    any_size = dataclasses.replace(experiment, forward=tiling.padded(forward, multiple))
    class_ids = make_predict(any_size, weights, dtype)
    overlap = functools.cache(lambda: tiling.receptive_field_radius(experiment.forward, weights, multiple))
    names, unreadable = output_names(paths), []
    outputs = {_output(output_dir, name, part) for name in names.values() for part in PARTS}
    for path in paths:
        if Path(os.path.abspath(path)) in outputs:
            raise InputError(f"{path}: a result would be written over it; take another --output_dir.")
    spent = {"decode": [], "network": [], "write": []}  # seconds
    bar = progress.bar(len(paths), "image")

    def timed(stage, function):
        def call(argument):
            started = time.monotonic()
            try:
                return function(argument)
            finally:
                spent[stage].append(time.monotonic() - started)

        return call

    in_use, stopped = threading.Lock(), threading.Event()
    in_turn = timed("network", lambda pixels: class_ids(pixels).numpy())

    def network(pixels):
        with in_use:  # by one, whichever thread it is of: memory is that of one tile or batch
            if stopped.is_set():
                raise CancelledError
            return in_turn(pixels)

    def decode(path):
        mapped = None if resize or _pixels(path) <= tile**2 else images.map_rgb(path)
        if mapped is not None:
            return Photo(path, names[path], *mapped.shape[:2], _crop_of(mapped), pixels=None)
        try:
            image = images.read_rgb(path, max_pixels=MAX_PIXELS)
        except InputError as error:
            return unreadable.append(error)
        except MemoryError:
            return unreadable.append(InputError(f"{path}: too large for the memory here; scale it down."))
        pixels = None
        if resize:
            pixels = np.asarray(image.resize((resize, resize), experiment.dataset.resample))
        elif image.width * image.height <= tile**2:
            pixels = np.asarray(image)
        return Photo(path, names[path], image.height, image.width, _crop_of(image), pixels)

    def in_tiles(photo):
        def while_writing(pixels):
            started = time.monotonic()
            outputs = network(pixels)
            spent["write"].append(started - time.monotonic())  # the writer waits for it
            return outputs

        tiles = tiling.tiled(
            while_writing,
            photo.crop,
            photo.height,
            photo.width,
            tile=tile,
            overlap=overlap(),
            multiple=multiple,
        )
        for _, row in itertools.groupby(tiles, key=lambda part: part[0].start):
            strip = np.concatenate([class_ids for _, _, class_ids in row], axis=1)
            bar.add(len(strip) / photo.height)
            yield strip

    def segment(photos):
        for batch in _batches(photos, tile**2):
            if batch[0].pixels is None:
                yield batch[0], in_tiles(batch[0])
            else:
                for photo, class_ids in zip(batch, network(np.stack([p.pixels for p in batch]))):
                    yield photo, _scaled(class_ids, photo.height, photo.width)
                bar.add(len(batch))

    def write(photo_and_strips):
        return _write(*photo_and_strips, experiment, output_dir)

    started = time.monotonic()
    with files.writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    with open(output_dir / "shares.jsonl", "w") as records, _threads(stopped) as pool:
        photos = _ahead(pool, timed("decode", decode), paths, _pixels)
        segmented = segment(photo for photo in photos if photo)
        for record in _ahead(pool, timed("write", write), segmented, lambda item: _held(item[0])):
            records.write(json.dumps(record) + "\n")
    bar.update(len(paths), finalize=True)
    seconds = time.monotonic() - started
    done = len(paths) - len(unreadable)
    shares = ", ".join(f"{stage} {sum(times) / seconds:.0%}" for stage, times in spent.items())
    print(f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; of that time {shares}")
    print(f"{output_dir}: NAME_labels.png, NAME_colours.png, NAME_overlay.png, shares.jsonl")
    for error in sorted(unreadable, key=str):
        print(f"skipped: {error}", file=sys.stderr)
    return 1 if unreadable else 0


@contextlib.contextmanager
def _threads(stopped):
    """A pool of threads; where the block raises, stopped is set, and what waits its turn dropped."""
    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ahead(pool, function, items, pixels):
    """Results of function, in the order of items, made in threads while the caller goes on.

    pixels: item -> a number; no more than PIXELS_AHEAD are left for later.
    """
    waiting, ahead = collections.deque(), 0
    for item in items:
        waiting.append((pixels(item), pool.submit(function, item)))
        ahead += waiting[-1][0]
        while ahead > PIXELS_AHEAD or len(waiting) > IMAGES_AHEAD:
            ahead -= waiting[0][0]
            yield waiting.popleft()[1].result()
    for _, result in waiting:
        yield result.result()


def _batches(photos, pixels):
    """Lists of photos of one size for the network, each of no more than so many pixels, or of one."""
    batch, held = [], 0
    for photo in photos:
        count = max(_held(photo), np.size(photo.pixels) // 3)
        if batch and (held + count > pixels or photo.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch, held = [], 0
        batch.append(photo)
        held += count
    if batch:
        yield batch


def _held(photo):
    return photo.width * photo.height


def _pixels(path):
    """Width times height by a file's header; 0 where decoding will say what is wrong."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return 0
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:
        return 0


def _crop_of(image):
    """`Photo.crop` for a PIL image or an array [H, W, 3]."""
    if isinstance(image, np.ndarray):
        return lambda top, left, bottom, right: np.asarray(image[top:bottom, left:right])
    return lambda top, left, bottom, right: np.asarray(image.crop((left, top, right, bottom)))


def _scaled(class_ids, height, width):
    """Strips of class ids [h, w] at another size, by nearest neighbour: uint8 [rows, width]."""
    rows, columns = (
        ((np.arange(size) + 0.5) * old / size).astype(int)
        for size, old in zip((height, width), class_ids.shape)
    )
    for top in range(0, height, STRIP):
        yield class_ids[rows[top : top + STRIP, None], columns]


def _write(photo, strips, experiment, output_dir):
    """Write the three pictures from strips of class ids, uint8 [rows, width]; the image's record."""
    labels, colours, overlay = (_output(output_dir, photo.name, part) for part in PARTS)
    palette, size = np.array(experiment.palette, np.uint8), (photo.width, photo.height)
    counts, top = np.zeros(256, np.int64), 0
    with files.writing(output_dir):
        labels.parent.mkdir(parents=True, exist_ok=True)
    with (
        png.writer(labels, *size, colour=png.GREY) as write_labels,
        png.writer(colours, *size, colour=png.PALETTE, palette=palette) as write_colours,
        png.writer(overlay, *size, colour=png.RGB) as write_overlay,
    ):
        for strip in strips:
            write_labels(strip)
            write_colours(strip)
            pixels = photo.crop(top, 0, top + len(strip), photo.width)
            write_overlay(pixels // 2 + palette[strip] // 2)
            counts += np.bincount(strip.ravel(), minlength=256)
            top += len(strip)
    return {
        "image": str(photo.path),
        "name": photo.name,
        "width": photo.width,
        "height": photo.height,
        "shares": {
            name: int(count) / (photo.width * photo.height) for name, count in zip(experiment.classes, counts)
        },
    }


def _output(output_dir, name, part):
    return Path(os.path.abspath(output_dir / f"{name}_{part}.png"))
