"""Write the result files of `core.inference.predict` for each image.

    NAME_labels.png    class ids, 8-bit greyscale; ids 0 and 1 both look black in a viewer
    NAME_colours.png   each pixel in the palette colour of its class
    NAME_overlay.png   half of the photo's colours plus half of NAME_colours.png

NAME is the name that `core.inference.photos.output_names` chose for the image. If the option
`probabilities` is given, class probabilities are written too, see `core.inference.probability_files`.
The results of a large image are written in strips, so that the memory does not have to hold the results of
the whole image. A strip is a block of consecutive rows.
"""

import contextlib
import os
import re
from pathlib import Path

import numpy as np

from core.inference import png, probability_files
from core.runtime import files
from core.runtime.errors import InputError

PICTURES = ("labels", "colours", "overlay")
RESULT = re.compile(r".*_(labels|colours|overlay|probability_\d+)\.png", re.IGNORECASE)


def paths(output_dir, name, probabilities, classes):
    """Return the absolute paths of an image's result files, a list of `Path`s.

    The list begins with the three PICTURES. The files with class probabilities follow.
    output_dir: the folder of the result files. name: the NAME of the image. probabilities: the format of the
    files with class probabilities, one of `probability_files.FORMATS`; None: there are no such files.
    classes: the number of classes.
    """
    prefix = os.path.abspath(output_dir / name)
    pictures = [f"{prefix}_{picture}.png" for picture in PICTURES]
    return [Path(path) for path in [*pictures, *probability_files.paths(prefix, probabilities, classes)]]


def is_result(path):
    """True if the file at path is a PNG file that `predict` wrote.

    The file's name and a text chunk in the file show this.
    """
    return bool(RESULT.fullmatch(path.name)) and png.is_ours(path)


def refuse_overwriting(images, written):
    """Raise InputError if a result file would replace an input image, or a file of other origin.

    images: paths of the input images. written: absolute paths of the result files to be written. A PNG file
    among them may exist only if an earlier call of `predict` wrote it. An .npy file may exist only if it
    could hold class probabilities; see `probability_files.is_ours`.
    """
    images = {Path(os.path.abspath(image)) for image in images}
    for path in written:
        is_ours = png.is_ours if path.suffix == ".png" else probability_files.is_ours
        if path in images or (os.path.lexists(path) and not is_ours(path)):
            raise InputError(
                f"{path}: a result would overwrite this file, which predict did not write; use another"
                " --output_dir."
            )


def write(photo, strips, experiment, output_dir, probabilities=None):
    """Write the result files of one image. Return a dict, the content of the image's line in shares.jsonl.

    photo: a `photos.Photo`. experiment: the `Experiment`, for class names and palette. output_dir,
    probabilities: as for `paths`.
    strips: an iterable of strips of the results, from the top of the image to the bottom. Each strip is a
    list of one or two arrays. The first array holds class ids, uint8 [rows, width]. If `probabilities` is
    given, the second array holds class probabilities [rows, width, classes], as returned by
    `probability_files.encode`.
    Raises InputError if a file cannot be written.
    """
    palette, classes = np.array(experiment.palette, np.uint8), len(experiment.classes)
    half_colours = palette // 2
    labels, colours, overlay, *others = paths(output_dir, photo.name, probabilities, classes)
    size, counts, top = (photo.width, photo.height), np.zeros(256, np.int64), 0
    with files.writing(output_dir):
        labels.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        write_labels = stack.enter_context(png.writer(labels, *size, colour=png.GREY))
        write_colours = stack.enter_context(png.writer(colours, *size, colour=png.PALETTE, palette=palette))
        write_overlay = stack.enter_context(png.writer(overlay, *size, colour=png.RGB))
        if others:
            write_others = stack.enter_context(probability_files.writer(others, *size, classes))
        for class_ids, *encoded in strips:
            write_labels(class_ids)
            write_colours(class_ids)
            pixels = photo.crop(top, 0, top + len(class_ids), photo.width)
            write_overlay(pixels // 2 + half_colours.take(class_ids, axis=0))
            if others:
                write_others(*encoded)
            counts += np.bincount(class_ids.ravel(), minlength=256)
            top += len(class_ids)
    return _record(photo, experiment.classes, counts)


def _record(photo, classes, counts):
    """Return the content of an image's line in shares.jsonl, a dict.

    photo: the `photos.Photo`. classes: the names of the classes. counts: int64 [256], the number of pixels
    of each class id.
    """
    path, page = photo.source.key
    return {
        "image": path,
        **({"page": page} if page else {}),
        "name": photo.name,
        "width": photo.width,
        "height": photo.height,
        "shares": {name: int(count) / photo.area for name, count in zip(classes, counts)},
    }
