"""Train one of this project's five networks on your own photos and masks.

Run: python -m experiments.own_images --data_dir=DIR --network=dubai_unet --patch_size=160 --run_dir=runs/own
     python -m experiments.own_images --data_dir=DIR --network=pets_unet --size=128 --classes=classes.txt

Files:   DIR/images/ holds the photos. DIR/masks/ holds a mask for each photo. The path of a mask in masks/
         is the path of the photo in images/, except that the suffix may differ. A mask is a PNG file whose
         pixel values are ids of classes, or an image in which each class has a colour. Without --data_dir,
         120 photos of pets and their masks are generated.
Splits:  DIR may define the training and the validation photos. The first form that exists is used:
           the lists train.txt and val.txt; a line is a photo's file name, stem, or path below images/
           the folders train/images/, train/masks/, val/images/ and val/masks/
           the folders images/train/, images/val/, masks/train/ and masks/val/
         Otherwise a random share of the photos, --val_share, is used for validation.
Classes: A line of the file --classes is NAME: ID or NAME: COLOUR, such as "road: 7" or "road: 128,64,128".
         Networks and predictions number the classes from 0, in the order of this file. These class ids may
         differ from the ids in the masks. Without --classes, every value in the masks is a class, except the
         values of --ignore. To find the values, a new run reads all masks, even with --limit. A new run
         writes its classes to classes.txt in its run folder. All commands that use the run read this file. To
         rename or merge classes, edit a copy of the file and pass the copy to a new run as --classes.
"""

import functools
from pathlib import Path

from absl import flags

from core import losses, metrics
from core.data import cache, class_list, own_images
from core.experiment import Experiment
from core.models import dubai_unet, labels_unet, mobilenet_unet, pets_unet, road_unet
from core.runs import run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import common_flags, loop, pretrained

NETWORKS = {  # name -> (module, number that must divide the images' height and width)
    "road_unet": (road_unet, 2**road_unet.DEPTH),
    "pets_unet": (pets_unet, 2**pets_unet.DEPTH),
    "dubai_unet": (dubai_unet, 2**dubai_unet.DEPTH),
    "labels_unet": (labels_unet, 2**labels_unet.DEPTH),
    "mobilenet_unet": (mobilenet_unet, 2 ** (mobilenet_unet.DEPTH + 1)),
}
SIZE = 256  # side of the resized photos, in pixels, if neither --size nor --patch_size is given


def define_flags(values):
    """Define the flags that all experiments share, and this experiment's own flags."""
    common_flags.define(values, name="own_images", epochs=25, batch_size=8, learning_rate=1e-3, clip_norm=1.0)
    new = common_flags.Definer(values)
    new.choice("network", "dubai_unet", list(NETWORKS), "The network to train.")
    size = f"Height and width in pixels to which photos are resized; by default {SIZE}."
    new.integer("size", None, size, 1, 2**14)
    patch_size = (
        "Height and width in pixels of the patches that photos are cut into. Photos are then not resized."
    )
    new.integer("patch_size", None, patch_size, 1, 2**14)
    classes = (
        "File with a line NAME: ID or NAME: COLOUR for each class; by default, every mask value is a class."
    )
    flags.DEFINE_string("classes", None, classes, **new.own)
    ignore = "Mask id or colour whose pixels do not count in the loss and the metrics"
    flags.DEFINE_multi_string("ignore", [], ignore, **new.own)
    tolerance = (
        "A pixel of a mask belongs to the nearest class colour if no channel differs by more than this. Masks"
        " with other colours are refused."
    )
    new.integer("colour_tolerance", 0, tolerance, 0, 255)
    weights = (
        "Weights of the classes in the loss. none: all classes weigh the same. balanced: each weight is"
        " inversely proportional to the number of pixels of its class in the training masks. A path: read"
        " from this file, which has a line NAME: WEIGHT for each class."
    )
    flags.DEFINE_string("class_weights", "none", weights, **new.own)
    share = "Share of the photos used for validation if --data_dir does not define the splits."
    new.number("val_share", 0.2, share, 0.001, 0.999)
    seed = "Seed of the random choice of the validation photos if --data_dir does not define the splits."
    new.integer("split_seed", 42, seed, 0, 2**32 - 1)
    pretrained.define_flags(values)
    flags.register_multi_flags_validator(
        ["size", "patch_size"],
        lambda value: value["size"] is None or value["patch_size"] is None,
        "give --size or --patch_size, not both",
        **new.own,
    )


def train(flags):
    """Train in the folder --run_dir; return the exit code of `loop.run`.

    If the run folder has no checkpoint, this function first writes the files that `experiment` reads:
    classes.txt and, unless --class_weights=none, class_weights.txt. Raises InputError if `experiment` or
    `loop.run` does, if a file cannot be written, or if a begun run has other settings or class files.
    """
    _check_side(flags)
    folder = Path(flags.run_dir)
    if run_folder.is_begun(folder):
        run_folder.check_settings(folder, "own_images", define_flags, flags)
        _refuse_edited_files(flags, folder)
    else:
        classes, comments = _new_classes(flags)
        dataset = _dataset(flags, classes)
        weights = _new_class_weights(flags, dataset, classes.names)
        run_folder.keep_text(folder / "classes.txt", class_list.to_text(classes, comments))
        if weights:
            text = class_list.weights_to_text(classes.names, weights)
            run_folder.keep_text(folder / "class_weights.txt", text)
    return loop.run(experiment(flags), define_flags, flags)


def experiment(flags):
    """Return the `Experiment` that the parsed flags define. This function writes no file of the run folder.

    If the run folder has flags.cfg or classes.txt, the classes and, unless --class_weights=none, the class
    weights are read from the run folder. Otherwise they are determined from the flags and the masks. Raises
    InputError if the network cannot process images of the side --size or --patch_size, or if flags, class
    files and masks contradict each other.
    """
    _check_side(flags)
    folder = Path(flags.run_dir)
    is_run = any((folder / name).exists() for name in ("flags.cfg", "classes.txt"))
    classes = class_list.read(folder / "classes.txt") if is_run else _new_classes(flags)[0]
    dataset = _dataset(flags, classes)
    if not is_run:
        class_weights = _new_class_weights(flags, dataset, classes.names)
    elif flags.class_weights == "none":
        class_weights = None
    else:
        class_weights = class_list.read_weights(folder / "class_weights.txt", classes.names)
    network, _ = NETWORKS[flags.network]
    logits = 1 if flags.network == "road_unet" and len(classes.names) == 2 else len(classes.names)
    loss = losses.binary_cross_entropy if logits == 1 else losses.categorical_cross_entropy
    options, loading = {"logits" if network is road_unet else "classes": logits}, {}
    if network is mobilenet_unet:
        options |= {"train_encoder": flags.train_encoder, "freeze_encoder_norm": flags.freeze_encoder_norm}
        loading["load_weights"] = lambda weights: pretrained.initialise(
            mobilenet_unet.encoder(weights), flags.encoder_weights, flags.patch_size or dataset.size
        )
    return Experiment(
        name="own_images",
        classes=classes.names,
        palette=classes.palette,
        dataset=dataset,
        init_weights=functools.partial(network.init_weights, **options),
        **loading,
        forward=network.forward,
        loss=functools.partial(loss, class_weights=class_weights) if class_weights else loss,
        metrics=metrics.multiclass(classes.names),
        best="mean_iou",
        ignore=bool(flags.ignore),
    )


def _refuse_edited_files(flags, folder):
    """Raise InputError if the files of --classes and --class_weights differ from their copies in a begun run.

    folder: the run folder. Files that no longer exist are not compared.
    """
    compared = [(flags.classes, folder / "classes.txt", class_list.read)]
    if flags.class_weights not in ("none", "balanced"):
        names = class_list.read(folder / "classes.txt").names
        read_weights = functools.partial(class_list.read_weights, names=names)
        compared.append((flags.class_weights, folder / "class_weights.txt", read_weights))
    for given, copy, read in compared:
        if given and Path(given).is_file() and read(Path(given)) != read(copy):
            raise InputError(
                f"{given}: differs from {copy}, with which this run began; restore the file, or begin a new"
                " --run_dir."
            )


def _check_side(flags):
    """Raise InputError if the network cannot process images of the side --size or --patch_size."""
    _, multiple = NETWORKS[flags.network]
    name, side = ("patch_size", flags.patch_size) if flags.patch_size else ("size", flags.size or SIZE)
    if side % multiple:
        raise InputError(f"--{name}={side}: must be a multiple of {multiple} for {flags.network}.")


def _dataset(flags, classes):
    """Return the `Dataset` of the run. classes: the run's `ClassList`."""
    preparation = own_images.Preparation(
        classes=classes,
        ignore=tuple(_ignored_values(flags, classes.coloured)),
        size=None if flags.patch_size else flags.size or SIZE,
        patch_size=flags.patch_size,
        colour_tolerance=flags.colour_tolerance,
        white_level=flags.white_level,
    )
    return own_images.dataset(
        preparation, val_share=flags.val_share, split_seed=flags.split_seed, data_dir=flags.data_dir
    )


def _new_classes(flags):
    """Return (`ClassList`, lines) of a new run: the classes in the file --classes, or found in the masks.

    lines: a list of texts for comments in classes.txt. The list is empty if --classes is given. Raises
    InputError if a value of --ignore is also the value of a class in the file --classes.
    """
    if not flags.classes:
        return _found_classes(flags)
    classes = class_list.read(Path(flags.classes))
    for text, value in zip(flags.ignore, _ignored_values(flags, classes.coloured)):
        for name, values in zip(classes.names, classes.values):
            if value in values:
                raise InputError(
                    f"--ignore={text}: {flags.classes} gives this value to the class {name}; remove the value"
                    " from --ignore or from that file."
                )
    return classes, []


def _found_classes(flags):
    """Find the classes in the masks, and print them; return (`ClassList`, lines).

    Every value in the masks is a class, except the values of --ignore. lines: a list with one text per class.
    The text holds the name of the class, its number of pixels, and its share of all mask pixels. Raises
    InputError if there are fewer than 2 classes.
    """
    data_dir = Path(
        flags.data_dir or cache.generated("own_images", own_images.generate, Path(flags.cache_dir))
    )
    found, counts = own_images.find_classes(data_dir, skip_unreadable=flags.skip_bad_images)
    ignored = set(_ignored_values(flags, found.coloured))
    kept = [index for index, (value,) in enumerate(found.values) if value not in ignored]
    if len(kept) < 2:
        raise InputError(
            f"--ignore: leaves {len(kept)} of the values in the masks as classes, but at least 2 are needed;"
            " ignore fewer values."
        )
    names, values = (tuple(part[index] for index in kept) for part in (found.names, found.values))
    lines = [
        f"{name}: {counts[value]:,} pixels, {counts[value] / counts.total():.2%}"
        for name, (value,) in zip(names, values)
    ]
    print(f"{len(names)} classes in the masks of {data_dir}:", *lines, sep="\n  ")
    return class_list.ClassList(names, values, found.coloured), lines


def _ignored_values(flags, coloured):
    """Yield the mask values of --ignore: ids, or colours, each packed into an integer by `colours.pack`.

    coloured: True if the masks mark classes by colours, False if they mark classes by ids. Raises InputError
    if --ignore has an id although coloured is True, a colour although coloured is False, or a text that is
    neither an id nor a colour.
    """
    for text in flags.ignore:
        try:
            value, is_colour = class_list.parse_value(text.strip())
        except ValueError as error:
            raise InputError(f"--ignore={text}: {error}.") from None
        if is_colour != coloured:
            kind = "a colour such as 128,64,128" if coloured else "an id such as 255"
            held = "colours" if coloured else "ids"
            raise InputError(f"--ignore={text}: give {kind}, because the classes are defined by {held}.")
        yield value


def _new_class_weights(flags, dataset, names):
    """Return the class weights of a new run, a tuple of floats, or None for --class_weights=none.

    dataset: the run's `Dataset`. names: the names of the classes.
    """
    if flags.class_weights == "none":
        return None
    if flags.class_weights != "balanced":
        return class_list.read_weights(Path(flags.class_weights), names)
    pixels = cache.load_split(dataset, flags, "train").split_pixels
    return losses.balanced_class_weights(pixels[: len(names)])


if __name__ == "__main__":
    cli.main(define_flags, train)
