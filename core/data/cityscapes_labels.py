"""Read the Cityscapes data set in its original layout: photos and label ids as PNG files.

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png     photos, 2048x1024 pixels
    gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png      label ids 0..33, 2048x1024 pixels

The official benchmark scores 19 of the 34 label ids. It ignores pixels whose true label is one of the other
15 ids.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core import metrics
from core.data import remarks
from core.data.images import read_class_ids, read_rgb, require_same_size
from core.data.listing import by_stem, composed, find_by_stem, image_files, subfolder
from core.data.synthetic import street_scenes
from core.experiment import Dataset
from core.runtime.errors import InputError

# for each label id: name, colour, and True if the official benchmark scores it
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
OFFICIAL = np.array([scored for _, _, scored in LABELS])  # bool [34]: True for the benchmark's 19 ids
# The Cityscapes label list gives licence plates the id -1, which an 8-bit file can only hold as 255. `_read`
# gives such pixels the id 0, unlabeled.
LICENCE_PLATE = 255
# filter for resizing photos and label ids, as in the article of the experiment `cityscapes_labels`
RESAMPLE = Image.Resampling.NEAREST
GENERATED = {"train": 96, "val": 24}  # number of generated scenes in each split


def dataset(*, train_size, val_size, white_level=0):
    """Return the `Dataset` with 34 classes. The class ids are the label ids.

    Photos and masks are resized to squares by nearest neighbour. train_size, val_size: side of the squares
    in the training and in the validation split, in pixels. white_level: see `core.data.images.read_rgb`.
    """
    sizes = {"train": train_size, "val": val_size}
    return Dataset(
        name="cityscapes_labels",
        find=find,
        read=lambda files, split: _read(*files, sizes[split], white_level),
        settings={"train_size": train_size, "val_size": val_size, "white_level": white_level},
        generate=generate,
        resample=RESAMPLE,
        size=val_size,
    )


def find(data_dir, split):
    """Return a list of (photo, label ids) files for a split, "train" or "val", sorted by city and name.

    A photo and its file of label ids have the same CITY and NAME. Photos may have any format that
    `core.data.images` can read. Image files that are directly in leftImg8bit/SPLIT/, and files of label ids
    without a photo, are not used. Warnings give their numbers (`core.data.remarks`).

    Raises InputError in these cases: there is no photo; a photo is not called NAME_leftImg8bit.SUFFIX; two
    photos differ only in the suffix; a photo has no file of label ids.
    """
    photos = subfolder(subfolder(data_dir, "leftImg8bit"), split)
    labels = subfolder(subfolder(data_dir, "gtFine"), split)
    found = []
    for city in sorted(path for path in photos.glob("[!.]*") if not path.is_file()):
        ids_folder = subfolder(labels, city.name)
        for photo in by_stem(image_files(city)).values():
            scene = photo.stem.removesuffix("_leftImg8bit")
            if scene == photo.stem:
                raise InputError(f"{photo}: not called NAME_leftImg8bit.png; rename or remove it.")
            ids = find_by_stem(ids_folder, f"{scene}_gtFine_labelIds", ".png")
            if not ids.is_file():
                raise InputError(f"{ids}: missing, but {photo} exists; unpack gtFine too.")
            found.append((photo, ids))
    if not found:
        raise InputError(f"{photos}: no CITY/*.png in it; --data_dir must hold leftImg8bit/ and gtFine/.")
    outside = len(image_files(photos))
    if outside:
        remarks.add("outside of cities", f"{photos}: {outside} images outside of city folders are not used")
    used = {composed(ids.name) for _, ids in found}
    unused = [
        path for path in labels.glob("[!.]*/[!.]*_gtFine_labelIds.png") if composed(path.name) not in used
    ]
    if unused:
        remarks.add("labels", f"{labels}: {len(unused)} files of label ids have no photo and are not used")
    return found


def scores(confusion):
    """Return a dict with metrics of the official benchmark and the metrics from `metrics.multiclass`.

    confusion: int64 [34, 34], true ids x predicted ids. The metrics from the benchmark are:

    mean_iou_19:          mean IoU of the benchmark's 19 classes. Classes that occur neither in truth nor in
                          prediction are excluded from the mean
    classes_averaged_19:  number of classes in this mean

    mean_iou_19 and classes_averaged_19 ignore pixels whose true id the benchmark does not score.
    """
    official = metrics.iou(np.where(OFFICIAL[:, None], confusion, 0))[OFFICIAL]
    return {
        "mean_iou_19": metrics.mean_over_classes(official),
        "classes_averaged_19": np.isfinite(official).sum(),
        **metrics.multiclass(CLASSES)(confusion),
    }


def generate(folder):
    """Write generated street scenes of 256x256 pixels into a folder. The files take about 20 MB.

    The folder gets the layout of the Cityscapes data set.
    """

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


def _read(photo_file, labels_file, size, white_level):
    """Return a photo, uint8 [1, size, size, 3], and its label ids, uint8 [1, size, size].

    Raises InputError if photo and labels differ in size, or if an id in the resized labels is neither 0..33
    nor LICENCE_PLATE.
    """
    photo, labels = read_rgb(photo_file, white_level=white_level), read_class_ids(labels_file)
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
