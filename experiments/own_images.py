"""Your own photos and masks: any of the five networks, with classes from a file or the masks.

DIR holds images/ and masks/, where a mask has the path and stem of its photo. Splits: lists
train.txt and val.txt, folders train/ and val/, or a random share of the photos. Masks: PNG
files of class ids, or colours. Without DIR, 120 generated pets are used.

Run: python -m experiments.own_images --data_dir=DIR --network=dubai_unet --patch_size=160 --run_dir=runs/own
     python -m experiments.own_images --data_dir=DIR --network=pets_unet --size=128 --classes=classes.txt

A line of classes.txt is NAME: ID or NAME: COLOUR, such as "road: 7" or "road: 128,64,128".
Without --classes, every value in the masks is a class; the run folder gets a classes.txt to
edit and pass to a new run. evaluate, predict and export read the classes of the run folder.
"""

import functools
from pathlib import Path

import numpy as np
from absl import flags

from core import losses, metrics
from core.data import cache, class_list, own_images
from core.experiment import Experiment
from core.models import dubai_unet, labels_unet, mobilenet_unet, mobilenet_v2, pets_unet, road_unet
from core.runs import run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import common_flags, loop, pretrained

NETWORKS = {  # name -> (module, number that must divide the images' height and width)
    "road_unet": (road_unet, 2**road_unet.DEPTH),
    "pets_unet": (pets_unet, 2**pets_unet.DEPTH),
    "dubai_unet": (dubai_unet, 2**dubai_unet.DEPTH),
    "labels_unet": (labels_unet, 2**labels_unet.DEPTH),
    "mobilenet_unet": (mobilenet_unet, 2 ** len(mobilenet_v2.TAP_CHANNELS)),
}
SIZE = 256  # side of the resized photos if neither --size nor --patch_size is given


def define_flags(values):
    """Define the common flags and the flags of own images."""
    common_flags.define(values, name="own_images", epochs=25, batch_size=8, learning_rate=1e-3, clip_norm=1.0)
    own = {"flag_values": values}
    flags.DEFINE_enum("network", "dubai_unet", list(NETWORKS), "The network to train.", **own)
    size = f"Height and width, in pixels, that photos are resized to; {SIZE} without --patch_size."
    flags.DEFINE_integer("size", None, size, 1, 2**14, **own)
    patch_size = "Height and width, in pixels, of patches that photos are cut into, instead of --size."
    flags.DEFINE_integer("patch_size", None, patch_size, 1, 2**14, **own)
    classes = "File with a line NAME: ID or NAME: COLOUR per class; by default, every mask value is a class."
    flags.DEFINE_string("classes", None, classes, **own)
    ignore = "Mask id or colour of pixels to leave out of loss, metrics and pictures; repeatable."
    flags.DEFINE_multi_string("ignore", [], ignore, **own)
    tolerance = "Largest channel difference between a mask pixel and the colour of its class."
    flags.DEFINE_integer("colour_tolerance", 0, tolerance, 0, 255, **own)
    weights = "Weights of the classes in the loss: none, balanced (inverse to pixel counts), or a file."
    flags.DEFINE_string("class_weights", "none", weights, **own)
    share = "Share of the photos used for validation, if neither lists nor folders define the splits."
    flags.DEFINE_float("val_share", 0.2, share, 0.001, 0.999, **own)
    seed = "Seed of the random choice of these validation photos."
    flags.DEFINE_integer("split_seed", 42, seed, 0, 2**32 - 1, **own)
    encoder = "For mobilenet_unet: imagenet, none, or the path of a Keras weights file."
    flags.DEFINE_string("encoder_weights", "imagenet", encoder, **own)
    flags.DEFINE_bool("train_encoder", False, "For mobilenet_unet: train the encoder too.", **own)
    flags.register_multi_flags_validator(
        ["size", "patch_size"],
        lambda value: value["size"] is None or value["patch_size"] is None,
        "give --size or --patch_size, not both",
        **own,
    )


def experiment(flags):
    """Return the experiment for parsed flags.

    Classes and class weights come from the run folder; if the run has no checkpoint yet, they
    come from the flags and the masks, and are written to the run folder. Raises InputError.
    """
    network, multiple = NETWORKS[flags.network]
    size = None if flags.patch_size else flags.size or SIZE
    side = flags.patch_size or size
    if side % multiple:
        raise InputError(
            f"--{'size' if size else 'patch_size'}={side}: must be a multiple of {multiple} for"
            f" {flags.network}."
        )
    is_begun = run_folder.is_begun(Path(flags.run_dir))
    classes = _run_classes(flags, is_begun)
    preparation = own_images.Preparation(
        classes=classes,
        ignore=tuple(_ignored_values(flags, classes.coloured)),
        size=size,
        patch_size=flags.patch_size,
        colour_tolerance=flags.colour_tolerance,
        white_level=flags.white_level,
    )
    dataset = own_images.dataset(
        preparation, val_share=flags.val_share, split_seed=flags.split_seed, data_dir=flags.data_dir
    )
    logits = 1 if flags.network == "road_unet" and len(classes.names) == 2 else len(classes.names)
    loss = losses.binary_cross_entropy if logits == 1 else losses.categorical_cross_entropy
    class_weights = _run_class_weights(flags, dataset, classes.names, is_begun)
    return Experiment(
        name="own_images",
        classes=classes.names,
        palette=classes.palette,
        dataset=dataset,
        init_weights=_init_weights(network, logits, flags.train_encoder),
        load_weights=lambda weights: _load_encoder(weights, network, flags.encoder_weights, side),
        forward=network.forward,
        loss=functools.partial(loss, class_weights=class_weights) if class_weights else loss,
        metrics=metrics.multiclass(classes.names),
        best="mean_iou",
        ignore=bool(flags.ignore),
    )


def _init_weights(network, logits, train_encoder):
    if network is road_unet:
        return functools.partial(network.init_weights, logits=logits)
    if network is mobilenet_unet:
        return functools.partial(network.init_weights, classes=logits, train_encoder=train_encoder)
    return functools.partial(network.init_weights, classes=logits)


def _load_encoder(weights, network, source, side):
    if network is mobilenet_unet and source != "none":
        path = pretrained.download(side) if source == "imagenet" else source
        pretrained.load(mobilenet_unet.encoder(weights), path)


def _run_classes(flags, is_begun):
    """Return the `ClassList` of classes.txt in the run folder; a new run writes this file first."""
    path = Path(flags.run_dir) / "classes.txt"
    if is_begun:
        return class_list.read(path)
    if flags.classes:
        classes, comments = class_list.read(Path(flags.classes)), []
    else:
        classes, comments = _found_classes(flags)
    run_folder.keep_text(path, class_list.to_text(classes, comments))
    return classes


def _found_classes(flags):
    """Return the `ClassList` of all mask values that are not ignored, and text lines with pixel counts."""
    data_dir = Path(flags.data_dir) if flags.data_dir else own_images.generated(Path(flags.cache_dir))
    found, counts = own_images.find_classes(data_dir)
    ignored = set(_ignored_values(flags, found.coloured))
    kept = [index for index, (value,) in enumerate(found.values) if value not in ignored]
    if len(kept) < 2:
        raise InputError(
            f"--ignore: only {len(kept)} of the values in the masks would be left; at least 2 are needed."
        )
    names, values = (tuple(part[index] for index in kept) for part in (found.names, found.values))
    lines = [
        f"{name}: {counts[value]:,} pixels, {counts[value] / counts.total():.2%}"
        for name, (value,) in zip(names, values)
    ]
    print(f"{len(names)} classes in the masks of {data_dir}:", *lines, sep="\n  ")
    return class_list.ClassList(names, values, found.coloured), lines


def _ignored_values(flags, coloured):
    """Yield the values of --ignore. Raises InputError for ids if the masks hold colours, and vice versa."""
    for text in flags.ignore:
        try:
            value, is_colour = class_list.parse_value(text.strip())
        except ValueError as error:
            raise InputError(f"--ignore={text}: {error}.") from None
        if is_colour != coloured:
            kind = "a colour such as 128,64,128" if coloured else "an id such as 255"
            raise InputError(f"--ignore={text}: give {kind}, because the classes have {kind}.")
        yield value


def _run_class_weights(flags, dataset, names, is_begun):
    """Return the class weights, or None. The run folder keeps them in class_weights.txt."""
    if flags.class_weights == "none":
        return None
    path = Path(flags.run_dir) / "class_weights.txt"
    if is_begun:
        return class_list.read_weights(path, names)
    if flags.class_weights == "balanced":
        train = cache.load_split(dataset, flags, "train")
        pixels = sum(np.bincount(train.masks[row].ravel(), minlength=256) for row in train.rows)
        weights = tuple(float(weight) for weight in losses.balanced_class_weights(pixels[: len(names)]))
    else:
        weights = class_list.read_weights(Path(flags.class_weights), names)
    run_folder.keep_text(path, class_list.weights_to_text(names, weights))
    return weights


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
