"""Cityscapes proper: photos and label ids as PNG, in the original layout.

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
    gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png      ids 0..33, 2048x1024 like the photos

The official benchmark scores 19 of the 34 ids and ignores the pixels of the rest.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core import metrics
from core.data.images import read_class_ids, read_rgb, require_same_size
from core.data.listing import image_files
from core.data.synthetic import street_scenes
from core.experiment import Dataset
from core.runtime.errors import InputError

# name and colour of each id, and whether the official benchmark scores it
LABELS = (
    ("unlabeled", (0, 0, 0), False),
    ("ego vehicle", (0, 0, 0), False),
    ("rectification border", (0, 0, 0), False),
    ("out of roi", (0, 0, 0), False),
    ("static", (0, 0, 0), False),
    ("dynamic", (111, 74, 0), False),
    ("ground", (81, 0, 81), False),
    ("road", (128, 64, 128), True),
    ("sidewalk", (244, 35, 232), True),
    ("parking", (250, 170, 160), False),
    ("rail track", (230, 150, 140), False),
    ("building", (70, 70, 70), True),
    ("wall", (102, 102, 156), True),
    ("fence", (190, 153, 153), True),
    ("guard rail", (180, 165, 180), False),
    ("bridge", (150, 100, 100), False),
    ("tunnel", (150, 120, 90), False),
    ("pole", (153, 153, 153), True),
    ("polegroup", (153, 153, 153), False),
    ("traffic light", (250, 170, 30), True),
    ("traffic sign", (220, 220, 0), True),
    ("vegetation", (107, 142, 35), True),
    ("terrain", (152, 251, 152), True),
    ("sky", (70, 130, 180), True),
    ("person", (220, 20, 60), True),
    ("rider", (255, 0, 0), True),
    ("car", (0, 0, 142), True),
    ("truck", (0, 0, 70), True),
    ("bus", (0, 60, 100), True),
    ("caravan", (0, 0, 90), False),
    ("trailer", (0, 0, 110), False),
    ("train", (0, 80, 100), True),
    ("motorcycle", (0, 0, 230), True),
    ("bicycle", (119, 11, 32), True),
)
CLASSES = tuple(name for name, _, _ in LABELS)
PALETTE = tuple(colour for _, colour, _ in LABELS)
OFFICIAL = np.array([scored for _, _, scored in LABELS])  # bool [34], 19 of them true
LICENCE_PLATE = 255  # id -1 of the label definition, in 8 bits; taken as unlabeled
RESAMPLE = Image.Resampling.NEAREST  # of photos as of ids, as the article has it
GENERATED = {"train": 96, "val": 24}


def dataset(*, train_size, val_size):
    """The 34 classes; photos and masks resized by nearest neighbour to a square."""
    return Dataset(
        name="cityscapes_labels",
        find=find,
        read=lambda files, split: _read(*files, {"train": train_size, "val": val_size}[split]),
        settings={"train_size": train_size, "val_size": val_size},
        generate=generate,
        resample=RESAMPLE,
    )


def find(data_dir, split):
    """(photo, label ids) of each photo of a split, matched by name, city after city.

    Raises InputError where there is no photo, and for a photo without label ids.
    """
    photos = data_dir / "leftImg8bit" / split
    found = []
    for city in sorted(path for path in photos.glob("[!.]*") if not path.is_file()):
        for photo in image_files(city, (".png",)):
            scene = photo.name.removesuffix("_leftImg8bit.png")
            if scene == photo.name:
                raise InputError(f"{photo}: not called NAME_leftImg8bit.png; rename or remove it.")
            labels = data_dir / "gtFine" / split / city.name / f"{scene}_gtFine_labelIds.png"
            if not labels.is_file():
                raise InputError(f"{labels}: missing, but {photo} is there; unpack gtFine too.")
            found.append((photo, labels))
    if not found:
        raise InputError(f"{photos}: no CITY/*.png in it; --data_dir must hold leftImg8bit/ and gtFine/.")
    return found


def figures(confusion):
    """All of `metrics.multiclass`, and the mean IoU over the 19 classes that count officially.

    For the latter, pixels whose true id is not one of the 19 are ignored.
    """
    official = metrics.iou(np.where(OFFICIAL[:, None], confusion, 0))[OFFICIAL]
    return {
        "mean_iou_19": np.nanmean(official),
        "classes_averaged_19": np.isfinite(official).sum(),
        **metrics.multiclass(CLASSES)(confusion),
    }


def generate(folder):
    """Write generated street scenes, 256x256, in the same layout: about 20 MB."""

    def write(split, index):
        for part, suffix, picture in zip(
            ("leftImg8bit", "gtFine"),
            ("leftImg8bit", "gtFine_labelIds"),
            street_scenes.scene((list(GENERATED).index(split), index)),
        ):
            name = f"generated_{index:06}_000019_{suffix}.png"
            Image.fromarray(picture).save(folder / part / split / "generated" / name)

    with ThreadPoolExecutor() as pool:
        for split, count in GENERATED.items():
            for part in ("leftImg8bit", "gtFine"):
                (folder / part / split / "generated").mkdir(parents=True, exist_ok=True)
            list(pool.map(write, [split] * count, range(count)))


def _read(photo_file, labels_file, size):
    photo, labels = read_rgb(photo_file), read_class_ids(labels_file)
    require_same_size(photo, labels, labels_file)
    photo = np.asarray(photo.resize((size, size), RESAMPLE))
    ids = np.array(labels.resize((size, size), RESAMPLE))
    ids[ids == LICENCE_PLATE] = 0
    if ids.max() >= len(CLASSES):
        raise InputError(
            f"{labels_file}: id {ids.max()} is not a Cityscapes label id (0..33);"
            " take the *_gtFine_labelIds.png files."
        )
    return photo[None], ids[None]
