"""Image files in, class ids, colours and overlays out, each at its image's own size.

Files are decoded and written in threads beside the network. Pillow can neither
decode nor encode a JPEG or PNG in parts: an image is whole in memory, four bytes a
pixel, with its class ids, one more. What the network needs goes by the tile.
"""

import collections
import dataclasses
import functools
import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from core import files, progress, tiling
from core.data import images
from core.errors import InputError
from core.evaluate import make_predict

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MAX_PIXELS = 2**29  # of an image: 2 GiB in memory
PIXELS_AHEAD = 2**25  # decoded or to be written beside the network; a larger image goes alone
IMAGES_AHEAD = 256
PARTS = ("labels", "overlay", "colours")
STRIP = 512  # rows of an overlay made at once


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded file: pixels is what the network takes, uint8 [h, w, 3], None if by the tile."""

    path: os.PathLike
    name: str
    image: Image.Image
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
        names = {
            path: "/".join(parts[path][-depth[path] :]) if depth[path] else path.stem for path in paths
        }
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
    overlap = functools.cache(lambda: tiling.reach(experiment.forward, weights, multiple))
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

    network = timed("network", lambda pixels: class_ids(pixels).numpy())

    def decode(path):
        try:
            image = images.read_rgb(path, max_pixels=MAX_PIXELS)
        except InputError as error:
            return unreadable.append(error)
        if resize:
            small = image.resize((resize, resize), experiment.dataset.resample)
            return Photo(path, names[path], image, np.asarray(small))
        whole = image.width * image.height <= tile**2
        return Photo(path, names[path], image, np.asarray(image) if whole else None)

    def in_tiles(image):
        whole = np.empty([image.height, image.width], np.uint8)
        for rows, columns, part in tiling.tiled(
            network,
            lambda top, left, bottom, right: np.asarray(image.crop((left, top, right, bottom))),
            *whole.shape,
            tile=tile,
            overlap=overlap(),
            multiple=multiple,
        ):
            whole[rows, columns] = part
            bar.add(part.size / whole.size)
        return whole

    def segment(photos):
        for batch in _batches(photos, tile**2):
            if batch[0].pixels is None:
                yield batch[0], in_tiles(batch[0].image)
            else:
                yield from zip(batch, network(np.stack([photo.pixels for photo in batch])))
                bar.add(len(batch))

    def write(photo_and_class_ids):
        return _write(*photo_and_class_ids, experiment, output_dir)

    started = time.monotonic()
    with files.writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    with open(output_dir / "shares.jsonl", "w") as records, ThreadPoolExecutor() as pool:
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
    for error in unreadable:
        print(f"skipped: {error}", file=sys.stderr)
    return 1 if unreadable else 0


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
    return photo.image.width * photo.image.height


def _pixels(path):
    """Width times height by a file's header; 0 where decoding will say what is wrong."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:
        return 0


def _write(photo, class_ids, experiment, output_dir):
    """Write the three pictures; the record of the image. Uses up photo.image."""
    picture, size = Image.fromarray(class_ids), photo.image.size
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.NEAREST)
    counts = picture.histogram()
    labels, overlaid, colourful = (_output(output_dir, photo.name, part) for part in PARTS)
    with files.writing(output_dir):
        labels.parent.mkdir(parents=True, exist_ok=True)
    _save(picture, labels)
    picture.putpalette(np.array(experiment.palette, np.uint8).tobytes())
    _save(picture, colourful)
    for top in range(0, size[1], STRIP):
        box = (0, top, size[0], min(top + STRIP, size[1]))
        colours = picture.crop(box).convert("RGB")
        photo.image.paste(Image.blend(photo.image.crop(box), colours, 0.5), box)
    _save(photo.image, overlaid)
    photo.image.close()  # free now what others still refer to
    return {
        "image": str(photo.path),
        "name": photo.name,
        "width": size[0],
        "height": size[1],
        "shares": {
            name: count / (size[0] * size[1]) for name, count in zip(experiment.classes, counts)
        },
    }


def _output(output_dir, name, part):
    return Path(os.path.abspath(output_dir / f"{name}_{part}.png"))


def _save(picture, path):
    with files.atomic(path) as file:
        picture.save(file, "PNG", compress_level=1)
