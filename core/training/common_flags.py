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
    """Define the common flags in a `flags.FlagValues`, with an article's defaults.

    name: the experiment's name. size: default height and width of the images, or None for an article that
    does not resize images; the flag --size is then not defined. multiple: height and width must be
    multiples of this number.
    """
    new = _Definer(values)
    new.integer("epochs", epochs, "Passes over the training images.", 1)
    new.integer("batch_size", batch_size, "Images per training step, over all devices.", 1)
    new.number("learning_rate", learning_rate, "Learning rate of Adam.")
    new.must("learning_rate", lambda rate: rate > 0, "must be above 0")
    new.number(
        "clip_norm", clip_norm, "Scale gradients down to this global norm if theirs is larger; 0: never."
    )
    if size is not None:
        new.integer("size", size, "Height and width in pixels to which images are resized.", 1, 2**14)
        halved = f"must be a multiple of {multiple}, because the network halves the size repeatedly"
        new.must("size", lambda size: size % multiple == 0, halved)
    _define_recipe(new)
    _define_data(new, name)
    _define_device(new)


class _Definer:
    """Helper for defining flags in a `flags.FlagValues`."""

    def __init__(self, values):
        self.own = {"flag_values": values}

    def integer(self, flag, default, help, lower_bound=0, upper_bound=10**9):
        flags.DEFINE_integer(flag, default, help, lower_bound, upper_bound, **self.own)

    def number(self, flag, default, help, upper_bound=1e9):
        flags.DEFINE_float(flag, default, help, 0, upper_bound, **self.own)
        self.must(flag, math.isfinite, "must be a number")

    def switch(self, flag, default, help):
        flags.DEFINE_bool(flag, default, help, **self.own)

    def choice(self, flag, default, choices, help):
        flags.DEFINE_enum(flag, default, choices, help, **self.own)

    def folder(self, flag, default, help):
        flags.DEFINE_string(flag, default, help, **self.own)
        self.must(flag, lambda name: name is None or re.fullmatch(r"[^\0\r\n]+", name), "must name a folder")

    def must(self, flag, holds, message):
        flags.register_validator(flag, holds, message, **self.own)

    def needs(self, flag, other, allowed, message):
        """Refuse the flag `flag` unless the flag `other` has one of the allowed values."""
        flags.register_multi_flags_validator(
            [flag, other], lambda value: not value[flag] or value[other] in allowed, message, **self.own
        )


def _define_recipe(new):
    """Define flags that change the training; their defaults keep the article's settings."""
    patience = "Stop after this many consecutive epochs without a smaller validation loss; 0: never."
    new.integer("early_stopping_patience", 0, patience)
    decay = (
        "Weight decay of kernels (AdamW): each step subtracts this value times learning rate times kernel."
    )
    new.number("weight_decay", 0, decay)
    rate = "Learning rate after the warm-up: constant, or falling along a cosine to 0 after the last epoch."
    new.choice("schedule", "constant", optimizer.SCHEDULES, rate)
    new.integer("warmup_steps", 0, "Steps over which the learning rate grows from 0 to --learning_rate.")
    dice = "Factor of a Dice loss that is added to the training loss; val_loss does not include it."
    new.number("dice", 0, dice, upper_bound=10)
    average = (
        "Decay of an exponential moving average of the weights, such as 0.999; validation and prediction"
        " then use the average. 0: no average."
    )
    new.number("ema_decay", 0, average, upper_bound=0.999999)
    known = ", ".join(augment.BY_NAME)
    changes = f"Random augmentations in addition to the article's, separated by commas: any of {known}."
    flags.DEFINE_list("augment", [], changes, **new.own)
    some = f"must be any of {known}, separated by commas"
    new.must("augment", lambda names: set(names) <= set(augment.BY_NAME), some)
    origin = "Folder of a run with the same network, whose weights this run begins with."
    new.folder("init_from", None, origin)
    which = "With --init_from: use the weights of that run's best or last epoch."
    new.choice("init_checkpoint", "best", ["best", "last"], which)
    seed = "Seed of the initial weights, the order of the images and all other random choices."
    new.integer("seed", 0, seed, 0, 2**63 - 1)


def _define_data(new, name):
    """Define flags of images, folders and files. name: the experiment's name."""
    new.integer("limit", 0, "Number of files to use from each split, beginning with the first; 0: all.")
    bad = "Leave out unreadable files, each with a warning, instead of stopping at the first one."
    new.switch("skip_bad_images", False, bad)
    share = "With --skip_bad_images: stop if more than this share of the files is unreadable."
    new.number("max_bad_share", 0.05, share, upper_bound=0.99)
    white = (
        "Sample value of white in photos with more than 8 bits per sample, such as 4095; 0: detected per"
        " file, with a warning."
    )
    new.integer("white_level", 0, white, 0, 2**16 - 1)
    new.folder("data_dir", None, "Folder of the data set; by default, images are generated.")
    new.must("data_dir", lambda folder: folder is None or os.path.isdir(folder), "no such folder")
    new.folder("run_dir", f"runs/{name}", "Folder of the run: flags, metrics, pictures, checkpoints.")
    new.folder("cache_dir", "cache", "Folder for decoded and for generated images.")
    minutes = "Minutes between checkpoints within an epoch; each epoch also ends with a checkpoint."
    new.number("checkpoint_every", 5, minutes)
    new.switch("tensorboard", False, "Write metrics and pictures for TensorBoard.")


def _define_device(new):
    """Define flags of the computation: precision, compilation and devices."""
    dtypes = ["float32", "bfloat16", "float16", precision.AUTO]
    dtype = (
        "Dtype of the activations. float16, for GPUs without bfloat16, uses loss scaling. auto: the faster"
        " of float32 and bfloat16 on this machine, measured for a second when a run begins."
    )
    new.choice("precision", "float32", dtypes, dtype)
    rewrites = (
        "auto: on CPUs, traced graphs replace some convolutions by exact rewrites that need less work. off:"
        " graphs compute every operation as it is written."
    )
    new.choice("lowering", "auto", lowering.MODES, rewrites)
    new.switch("xla", False, "Compile the training step with XLA.")
    devices = "One device, all GPUs of this machine, or all machines in the environment variable TF_CONFIG."
    new.choice("strategy", "single", distribution.STRATEGIES, devices)
    resident = (
        "Keep all decoded training images in the device's memory, for a GPU that would wait for the CPU."
    )
    new.switch("data_on_device", False, resident)
    same = (
        "Use deterministic ops, so that runs with the same seed are bit-identical. This is the default on"
        " CPUs without --xla, where it costs nothing; on GPUs it makes some ops slower."
    )
    new.switch("deterministic", None, same)
    gradient = "with --xla, max-pooling has no deterministic gradient: use only one of these flags"
    new.needs("xla", "deterministic", [None, False], gradient)
    for flag in ("xla", "data_on_device"):
        one_device = f"--{flag} works on one device only: use it without --strategy"
        new.needs(flag, "strategy", ["single"], one_device)
