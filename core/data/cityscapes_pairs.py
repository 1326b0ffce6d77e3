"""Read Cityscapes image pairs. The left half of each JPEG file is a photo, the right half its class colours.

The authors of pix2pix published the data set, and it is on Kaggle too ("cityscapes-image-pairs"):
`train/1.jpg` .. `train/2975.jpg` and `val/1.jpg` .. `val/500.jpg`, each 512x256 pixels.
JPEG compression changed the class colours, so colours are compared with a tolerance.
A user's own pairs may have any format that `core.data.images` can read.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from core.data.images import read_rgb
from core.data.listing import by_stem, find_root, image_files, subfolder
from core.data.synthetic import street_scenes
from core.experiment import Dataset
from core.runtime.errors import InputError

# number of generated pairs in each split
GENERATED = {"train": 400, "val": 100}


def road_dataset(*, size, road_rgb, road_tolerance, clean_labels=False, white_level=0):
    """Return the `Dataset` of pairs with two classes: class id 1 for road, and 0 for everything else.

    Photos and masks are resized to size x size pixels. A pixel is road if its class colour differs from
    road_rgb by at most road_tolerance in each channel. road_rgb and road_tolerance have values 0..255.
    white_level: see `core.data.images.read_rgb`.

    clean_labels: how masks are resized. False: the class colours are resized by nearest neighbour, then
    compared with road_rgb. True: the class colours are compared with road_rgb at full size, and a 3x3 median
    filter removes specks from the mask. Then the mask is resized: each pixel gets the class that is most
    frequent in the area that the pixel covers. Filter and resizing remove most of the JPEG noise.
    """
    road_rgb = tuple(road_rgb)
    settings = {
        "size": size,
        "road_rgb": road_rgb,
        "road_tolerance": road_tolerance,
        "clean_labels": clean_labels,
        "white_level": white_level,
    }
    return Dataset(
        name="cityscapes_pairs",
        find=find,
        read=lambda files, split: _read(files, **settings),
        settings=settings,
        generate=generate,
        check=lambda pixels, files: _check(pixels, files, road_rgb, road_tolerance, white_level),
        size=size,
    )


def find(data_dir, split):
    """Return the files of the pairs in a split, "train" or "val", as a list of tuples (file,).

    The folders train/ and val/ are in data_dir itself or in one of its direct subfolders. Raises InputError
    if no folder, or more than one subfolder, contains both, if the folder of the requested split contains no
    pairs, or if two pairs differ only in the suffix.
    """

    def is_root(folder):
        return all(subfolder(folder, name).is_dir() for name in ("train", "val"))

    root = find_root(data_dir, is_root)
    if not root:
        raise InputError(
            f"{data_dir}: no folders train/ and val/ with pairs, such as 1.jpg, here or one level down;"
            " pass the folder that holds both as --data_dir."
        )
    folder = subfolder(root, split)
    pairs = by_stem(image_files(folder)).values()
    if not pairs:
        raise InputError(f"{folder}: no pairs, such as 1.jpg, in this folder; put them there.")
    return [(path,) for path in pairs]


def split_pair(path, white_level=0):
    """Read a pair and return its two square halves (photo, colours) as PIL images of mode RGB.

    white_level: see `core.data.images.read_rgb`. Raises InputError if the file is damaged, or if the image is
    not twice as wide as high.
    """
    pair = read_rgb(path, white_level=white_level)
    if pair.width != 2 * pair.height:
        raise InputError(
            f"{path}: {pair.width}x{pair.height} is not twice as wide as high, as a pair (photo left, class"
            " colours right) must be; remove or replace the file."
        )
    half = pair.height
    return ImageOps.crop(pair, (0, 0, half, 0)), ImageOps.crop(pair, (half, 0, 0, 0))


def generate(folder):
    """Write generated street scenes as JPEG pairs into folder/train and folder/val.

    The files take about 20 MB.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[list(street_scenes.COLOURS)] = list(street_scenes.COLOURS.values())

    def write(split, index):
        photo, labels = street_scenes.scene((list(GENERATED).index(split), index))
        pair = Image.fromarray(np.concatenate([photo, palette[labels]], axis=1))
        pair.save(folder / split / f"{index + 1}.jpg", quality=92)

    with ThreadPoolExecutor() as pool:
        for split, count in GENERATED.items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            list(pool.map(write, [split] * count, range(count)))


def _read(files, size, road_rgb, road_tolerance, clean_labels, white_level):
    """Read a pair; return its photo, uint8 [1, size, size, 3], and its mask, uint8 [1, size, size].

    files: a tuple with the path of the pair. `road_dataset` describes the other arguments.
    """

    def road(colours):
        """Return a mask, uint8 [H, W]: 1 for road, else 0. colours: PIL image of the class colours."""
        distance = np.abs(np.asarray(colours, np.int16) - np.array(road_rgb, np.int16)).max(axis=-1)
        return (distance <= road_tolerance).astype(np.uint8)

    photo, colours = split_pair(*files, white_level)
    photo = photo.resize((size, size), Image.Resampling.BILINEAR)
    if clean_labels:
        share = Image.fromarray(255 * road(colours)).filter(ImageFilter.MedianFilter(3))
        share = share.resize((size, size), Image.Resampling.BOX)
        mask = (np.asarray(share) > 127).astype(np.uint8)
    else:
        mask = road(colours.resize((size, size), Image.Resampling.NEAREST))
    return np.asarray(photo)[None], mask[None]


def _check(pixels, files, road_rgb, road_tolerance, white_level):
    """Raise InputError if all pixels of the training masks are road, or if no pixel is road.

    The message lists the most frequent class colours in the first 50 pairs. pixels: int64 [256], number of
    pixels of each class id. files: the training pairs, a list of (file,). `road_dataset` describes the other
    arguments.
    """
    if pixels[0] and pixels[1]:
        return
    seen = Counter()
    for (path,) in files[:50]:
        _, half = split_pair(path, white_level)
        colours, counts = np.unique(np.asarray(half).reshape(-1, 3), axis=0, return_counts=True)
        seen.update({tuple(map(int, colour)): int(count) for colour, count in zip(colours, counts)})
    frequent = ", ".join(f"{colour} {count / seen.total():.1%}" for colour, count in seen.most_common(5))
    raise InputError(
        f"{'every' if pixels[1] else 'no'} pixel of the {len(files)} training masks is within"
        f" {road_tolerance} of road colour"
        f" {road_rgb}; the most frequent colours in the first {len(files[:50])} masks are {frequent}:"
        " change --road_rgb or --road_tolerance."
    )
