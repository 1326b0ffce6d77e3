"""The files that predict writes for each image, from strips of class ids."""

import os
from pathlib import Path

import numpy as np

from core.inference import png
from core.runtime import files
from core.runtime.errors import InputError

PARTS = ("labels", "colours", "overlay")


def path(output_dir, name, part):
    """Absolute path of one of the PARTS of an image's results."""
    return Path(os.path.abspath(output_dir / f"{name}_{part}.png"))


def refuse_overwriting(names, output_dir):
    """Raise InputError if a result would replace one of the images. names: path -> output name."""
    written = {path(output_dir, name, part) for name in names.values() for part in PARTS}
    for image in names:
        if Path(os.path.abspath(image)) in written:
            raise InputError(f"{image}: a result would be written over it; take another --output_dir.")


def write(photo, strips, experiment, output_dir):
    """Write an image's PNG files and return its record, a dict for shares.jsonl.

    strips: class ids uint8 [rows, width], from the top. NAME_labels.png holds the class ids,
    NAME_colours.png the same in the experiment's palette, NAME_overlay.png the mean of photo
    and colours.
    """
    labels, colours, overlay = (path(output_dir, photo.name, part) for part in PARTS)
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
    return _record(photo, experiment.classes, counts)


def _record(photo, classes, counts):
    return {
        "image": str(photo.path),
        "name": photo.name,
        "width": photo.width,
        "height": photo.height,
        "shares": {name: int(count) / photo.area for name, count in zip(classes, counts)},
    }
