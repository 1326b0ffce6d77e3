"""The flags that all experiments share."""

import math
import os
import re

from absl import flags

from core import lowering
from core.data import augment
from core.runtime import distribution, precision
from core.training import optimizer


def define(values, *, name, epochs, batch_size, learning_rate, clip_norm, size=None, multiple=None):
    """Define the flags that all experiments share, in the `flags.FlagValues` given by `values`.

    name: the experiment's name. epochs, batch_size, learning_rate, clip_norm, size: the defaults of the flags
    with these names. If size is None, the flag --size is not defined. multiple: --size must be a multiple of
    this number.
    """
    new = Definer(values)
    new.integer("epochs", epochs, "Passes over the training images.", 1)
    new.integer("batch_size", batch_size, "Images per training step, over all devices.", 1)
    new.number("learning_rate", learning_rate, "Learning rate of Adam.")
    new.must("learning_rate", lambda rate: rate > 0, "must be above 0")
    clip = "Largest global norm of the gradients. Larger gradients are scaled to this norm. 0: no clipping."
    new.number("clip_norm", clip_norm, clip)
    if size is not None:
        new.integer("size", size, "Height and width in pixels to which images are resized.", 1, 2**14)
        halved = f"must be a multiple of {multiple}, because the network halves the size repeatedly"
        new.must("size", lambda size: size % multiple == 0, halved)
    _define_recipe(new)
    _define_data(new, name)
    _define_device(new)


class Definer:
    """Defines flags of several types, with validators, in one `flags.FlagValues`."""

    def __init__(self, values):
        self.own = {"flag_values": values}

    def integer(self, flag, default, help, lower_bound=0, upper_bound=10**9):
        flags.DEFINE_integer(flag, default, help, lower_bound, upper_bound, **self.own)

    def number(self, flag, default, help, lower_bound=0, upper_bound=1e9):
        flags.DEFINE_float(flag, default, help, lower_bound, upper_bound, **self.own)
        self.must(flag, math.isfinite, "must be a number")

    def switch(self, flag, default, help):
        flags.DEFINE_bool(flag, default, help, **self.own)

    def choice(self, flag, default, choices, help):
        flags.DEFINE_enum(flag, default, choices, help, **self.own)

    def folder(self, flag, default, help):
        flags.DEFINE_string(flag, default, help, **self.own)
        self.must(flag, lambda name: name is None or re.fullmatch(r"[^\0\r\n]+", name), "must name a folder")

    def must(self, flag, holds, message):
        """Add a validator. holds: a function (value) -> bool. message: the error if the result is False."""
        flags.register_validator(flag, holds, message, **self.own)

    def needs(self, flag, other, allowed, message):
        """Add a validator: if `flag` is true, the flag `other` must have one of the allowed values."""
        flags.register_multi_flags_validator(
            [flag, other], lambda value: not value[flag] or value[other] in allowed, message, **self.own
        )


def _define_recipe(new):
    """Define the flags of the training method. Their defaults are the settings of the articles.

    new: the `Definer` that defines the flags.
    """
    patience = "Stop after this many consecutive epochs without a new smallest validation loss; 0: never."
    new.integer("early_stopping_patience", 0, patience)
    decay = (
        "Weight decay of the kernels (AdamW): each step multiplies kernels by 1 - learning rate * this value."
    )
    new.number("weight_decay", 0, decay)
    rate = (
        "Learning rate after the warm-up. constant: --learning_rate. cosine: falls from --learning_rate to 0,"
        " along half a cosine, until the end of the training."
    )
    new.choice("schedule", "constant", optimizer.SCHEDULES, rate)
    warmup = (
        "Number of steps, at the beginning of the training, in which the learning rate grows linearly to"
        " --learning_rate. 0: no warm-up."
    )
    new.integer("warmup_steps", 0, warmup)
    dice = "Factor of a Dice loss that is added to the training loss, but not to val_loss; 0: no Dice loss."
    new.number("dice", 0, dice, upper_bound=10)
    average = (
        "Decay of an exponential moving average of the weights, such as 0.999. Validation and prediction use"
        " the average. 0: no average."
    )
    new.number("ema_decay", 0, average, upper_bound=0.999999)
    known = ", ".join(augment.BY_NAME)
    changes = (
        "Random augmentations of the training images, separated by commas, in addition to those that the"
        " experiment always applies. flip: mirror left and right. dihedral: one of the eight symmetries of a"
        " square, for images taken from above. zoom: enlarge a random window. colour: change brightness,"
        " contrast and saturation."
    )
    flags.DEFINE_list("augment", [], changes, **new.own)
    some = f"must be any of {known}, separated by commas"
    new.must("augment", lambda names: set(names) <= set(augment.BY_NAME), some)
    origin = "Folder of another run with the same network. The weights of that run are the initial weights."
    new.folder("init_from", None, origin)
    which = "With --init_from: take the weights of the other run's best epoch, or of its last epoch."
    new.choice("init_checkpoint", "best", ["best", "last"], which)
    seed = "Seed of the training: initial weights, order of the images, augmentations, dropout."
    new.integer("seed", 0, seed, 0, 2**63 - 1)


def _define_data(new, name):
    """Define the flags for the images, the folders and the files of a run.

    new: the `Definer` that defines the flags. name: the experiment's name.
    """
    limit = (
        "Use only the first N photos of each split, or of all photos if the split is random; 0: all photos."
    )
    new.integer("limit", 0, limit)
    bad = "Leave out unreadable files, with a warning about each, instead of stopping at the first one."
    new.switch("skip_bad_images", False, bad)
    share = "Largest accepted share of unreadable files, 0 to 0.99, with --skip_bad_images."
    new.number("max_bad_share", 0.05, share, upper_bound=0.99)
    white = (
        "Sample value of white in photos with more than 8 bits per sample, such as 4095. 0: the value is"
        " detected in each file, with a warning if it is below 65535; in PGM files, the header gives it."
    )
    new.integer("white_level", 0, white, 0, 2**31 - 1)
    new.folder("data_dir", None, "Folder of the data set. Default: generated images.")
    new.must("data_dir", lambda folder: folder is None or os.path.isdir(folder), "no such folder")
    new.folder("run_dir", f"runs/{name}", "Folder for the run's flags, metrics, pictures, checkpoints.")
    new.folder("cache_dir", "cache", "Folder for decoded images and for generated images.")
    minutes = (
        "Minutes between checkpoints during an epoch. 0: after every step, but not more often than every half"
        " second. The end of an epoch always saves a checkpoint."
    )
    new.number("checkpoint_every", 5, minutes)
    new.switch("tensorboard", False, "Also write metrics and pictures for TensorBoard.")


def _define_device(new):
    """Define the flags for precision, compilation and devices. new: the `Definer` that defines the flags."""
    dtypes = ["float32", "bfloat16", "float16", precision.AUTO]
    dtype = (
        "Dtype of the activations. float16 is for GPUs without bfloat16 and uses loss scaling. auto measures"
        " float32 and bfloat16 for a second when a run begins, and takes the faster dtype."
    )
    new.choice("precision", "float32", dtypes, dtype)
    new.choice("lowering", "auto", lowering.MODES, lowering.HELP)
    xla = "Compile the training step with XLA. On CPUs, XLA's convolutions are slower than TensorFlow's."
    new.switch("xla", False, xla)
    devices = (
        "single: one device. mirrored: all GPUs of this machine. multi_worker: all machines that the"
        " environment variable TF_CONFIG lists."
    )
    new.choice("strategy", "single", distribution.STRATEGIES, devices)
    resident = (
        "Keep the decoded training images in the device's memory; if the split is random, also the validation"
        " images. Useful if a GPU would otherwise wait for images from the CPU."
    )
    new.switch("data_on_device", False, resident)
    same = (
        "Use deterministic ops, so that runs with the same seed are bit-identical. Default: true on CPUs"
        " without --xla, otherwise false. On GPUs, some deterministic ops are slower."
    )
    new.switch("deterministic", None, same)
    gradient = "XLA has no deterministic gradient of max-pooling: use --xla or --deterministic, not both"
    new.needs("xla", "deterministic", [None, False], gradient)
    for flag in ("xla", "data_on_device"):
        one_device = f"--{flag} works on one device only: use it without --strategy"
        new.needs(flag, "strategy", ["single"], one_device)
