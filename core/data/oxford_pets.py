"""Read the Oxford-IIIT Pet data set, photos of cats and dogs with trimaps, in its official layout.

A trimap is a mask of the values 1, 2 and 3.

    images/NAME.jpg
    annotations/trimaps/NAME.png      1 pet, 2 background, 3 outline
    annotations/trainval.txt          one line per training photo: NAME and three numbers, which are not used
    annotations/test.txt              one line per validation photo, in the same form

Some official files images/*.jpg have another format than JPEG, or are not RGB. These files are read too. A
user's own photos may have any format that `core.data.images` can read, and any suffix of such a format.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core.data.images import read_class_ids, read_rgb, require_same_size
from core.data.listing import find_by_stem, lines, subfolder
from core.data.synthetic import pet_scenes
from core.experiment import Dataset
from core.runtime.errors import InputError

CLASSES = ("pet", "background", "outline")
PALETTE = ((255, 205, 80), (60, 60, 90), (230, 60, 60))
LISTS = {"train": "trainval.txt", "val": "test.txt"}
GENERATED = {"train": 160, "val": 40}  # number of generated photos in each split


def dataset(*, size, white_level=0):
    """Return the `Dataset` with three classes. Photos and masks are resized to size x size pixels.

    The class id of a pixel is its trimap value minus 1. white_level: see `images.read_rgb`.
    """
    return Dataset(
        name="oxford_pets",
        find=find,
        read=lambda files, split: _read(*files, size, white_level),
        settings={"size": size, "white_level": white_level},
        generate=generate,
        check=_check,
        size=size,
    )


def find(data_dir, split):
    """Return a list of (photo, trimap) files for a split, "train" or "val".

    The files have the order of the split's text file in annotations/. A name that is listed twice is used
    once. Raises InputError if the text file is missing, is not UTF-8 text or contains no names. Also raises
    InputError if one of the names is a path with folders, or if the photo or the trimap of a name is missing.
    """
    path = subfolder(data_dir, "annotations") / LISTS[split]
    if not os.path.exists(path):
        raise InputError(f"{path}: missing; --data_dir must hold images/ and annotations/{LISTS[split]}.")
    names = [line.split()[0] for _, line in lines(path)]
    if not names:
        raise InputError(f"{path}: the list holds no names; download the annotations again.")
    images, trimaps = subfolder(data_dir, "images"), subfolder(path.parent, "trimaps")
    return [_example(images, trimaps, path, name) for name in dict.fromkeys(names)]


def generate(folder):
    """Write generated photos of pets and their trimaps into a folder. The files take about 10 MB.

    The folder gets the layout of the official data set.
    """
    for part in ("images", "annotations/trimaps"):
        (folder / part).mkdir(parents=True, exist_ok=True)

    def write(split, index):
        photo, trimap = pet_scenes.scene((list(GENERATED).index(split), index))
        name = f"{split}_{index + 1}"
        Image.fromarray(photo).save(folder / "images" / f"{name}.jpg", quality=92)
        Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")
        return f"{name} 1 1 1\n"

    with ThreadPoolExecutor() as pool:
        for split, count in GENERATED.items():
            listed = pool.map(write, [split] * count, range(count))
            (folder / "annotations" / LISTS[split]).write_text("".join(listed))


def _example(images, trimaps, path, name):
    """Return the (photo, trimap) files of a name. path: the text file that contains the name.

    images, trimaps: the folders of the photos and of the trimaps.
    Raises InputError if the name is a path with folders, or if one of the two files is missing.
    """
    if "/" in name or "\\" in name:
        raise InputError(f"{path}: {name!r} is a path, not a name; correct the list.")
    files = find_by_stem(images, name, ".jpg"), find_by_stem(trimaps, name, ".png")
    for file in files:
        if not os.path.isfile(file):  # isfile returns False if the name is too long for a file
            raise InputError(f"{file}: missing, but {path.name} lists {name}; restore the file.")
    return files


def _check(pixels, files):
    """Raise InputError if a class occurs in no training trimap.

    pixels: int64 [256], number of pixels of each class id. files: list of (photo, trimap) files for training.
    """
    for name, count in zip(CLASSES, pixels):
        if not count:
            raise InputError(
                f"{files[0][1].parent}: no pixel of the {len(files)} training trimaps is {name};"
                " correct the trimaps."
            )


def _read(photo_file, trimap_file, size, white_level):
    """Return a photo, uint8 [1, size, size, 3], and its class ids, uint8 [1, size, size]."""
    photo, trimap = read_rgb(photo_file, white_level=white_level), read_class_ids(trimap_file)
    require_same_size(photo, trimap, trimap_file)
    photo = photo.resize((size, size), Image.Resampling.BILINEAR)
    trimap = np.asarray(trimap.resize((size, size), Image.Resampling.NEAREST))
    if not 1 <= trimap.min() <= trimap.max() <= len(CLASSES):
        raise InputError(f"{trimap_file}: a trimap holds 1, 2 and 3 only; replace the file.")
    return np.asarray(photo)[None], (trimap - 1)[None]
