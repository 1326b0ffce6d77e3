"""The flags that every experiment has, and reading flags outside the command line."""

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

    multiple: what the network's input height and width are a multiple of. Where
    size is None there is no flag --size: the article does not resize its images.
    """
    own = {"flag_values": values}

    def integer(flag, default, help, lower_bound=0, upper_bound=10**9):
        flags.DEFINE_integer(flag, default, help, lower_bound, upper_bound, **own)

    def number(flag, default, help, upper_bound=1e9):
        flags.DEFINE_float(flag, default, help, 0, upper_bound, **own)
        must(flag, math.isfinite, "must be a number")

    def folder(flag, default, help):
        flags.DEFINE_string(flag, default, help, **own)
        must(flag, lambda name: name is None or re.fullmatch(r"[^\0\r\n]+", name), "must name a folder")

    def must(flag, holds, message):
        flags.register_validator(flag, holds, message, **own)

    def needs(flag, other, allowed, message):
        """Where flag is given, the other must have one of the values allowed."""
        flags.register_multi_flags_validator(
            [flag, other], lambda value: not value[flag] or value[other] in allowed, message, **own
        )

    # --- the training
    integer("epochs", epochs, "Passes over the training images.", 1)
    integer("batch_size", batch_size, "Images in a training step, of all devices together.", 1)
    patience = "End after so many epochs in a row without a smaller validation loss; 0: never."
    integer("early_stopping_patience", 0, patience)
    number("learning_rate", learning_rate, "Step size of Adam.")
    must("learning_rate", lambda rate: rate > 0, "must be above 0")
    number("clip_norm", clip_norm, "Largest global norm of a gradient; 0: no clipping.")
    decay = "Share of the kernels' weights, times the learning rate, taken off at each step (AdamW)."
    number("weight_decay", 0, decay)
    rate = "The learning rate after the warm-up: the same, or falling to 0 at the end."
    flags.DEFINE_enum("schedule", "constant", optimizer.SCHEDULES, rate, **own)
    integer("warmup_steps", 0, "Steps over which the learning rate grows to its value.")
    dice = "Weight of the Dice loss, added to the article's in training; val_loss is without it."
    number("dice", 0, dice, upper_bound=10)
    average = (
        "Validate and predict with a moving average of the weights that keeps so much of itself at each"
        " step, such as 0.999; 0: with the weights."
    )
    number("ema_decay", 0, average, upper_bound=0.999999)
    known = ", ".join(augment.BY_NAME)
    changes = f"Random changes of what a training sees, beside the article's: some of {known}."
    flags.DEFINE_list("augment", [], changes, **own)
    must(
        "augment",
        lambda names: set(names) <= set(augment.BY_NAME),
        f"must be some of {known}, with commas between",
    )
    folder("init_from", None, "Folder of a run with the same network, whose weights this run begins with.")
    which = "With --init_from: take its epoch with the best validation metric, or its last epoch."
    flags.DEFINE_enum("init_checkpoint", "best", ["best", "last"], which, **own)
    integer("seed", 0, "Decides initial weights, order and every random choice.", 0, 2**63 - 1)

    # --- data and folders
    if size is not None:
        integer("size", size, "Height and width, in pixels, that images are resized to.", 1, 2**14)
        halved = f"must be a multiple of {multiple}: the network halves it again and again"
        must("size", lambda size: size % multiple == 0, halved)
    integer("limit", 0, "Use only the first so many files of each list; 0: all.")
    bad = "Leave out files that cannot be read, and name them, in place of stopping at the first."
    flags.DEFINE_bool("skip_bad_images", False, bad, **own)
    share = "With --skip_bad_images: stop nevertheless if more than this share of the files is bad."
    number("max_bad_share", 0.05, share, upper_bound=0.99)
    white = (
        "Sample value of white in photos with more than 8 bits per sample, such as 4095; 0: detected per"
        " file, with a warning."
    )
    integer("white_level", 0, white, 0, 2**16 - 1)
    folder("data_dir", None, "Folder of the data set; without it, images are generated.")
    must("data_dir", lambda folder: folder is None or os.path.isdir(folder), "no such folder")
    folder("run_dir", f"runs/{name}", "Folder of the run: flags, metrics, pictures, checkpoints.")
    folder("cache_dir", "cache", "Folder for decoded and generated images.")
    number("checkpoint_every", 5, "Minutes between checkpoints within an epoch.")
    flags.DEFINE_bool("tensorboard", False, "Write scalars and pictures for TensorBoard.", **own)

    # --- the device
    dtypes = ["float32", "bfloat16", "float16", precision.AUTO]
    dtype = (
        "Dtype of activations. float16, with loss scaling, is for GPUs that are too old for bfloat16. auto:"
        " the faster of float32 and bfloat16 on this machine, measured for a second when a run begins."
    )
    flags.DEFINE_enum("precision", "float32", dtypes, dtype, **own)
    rewrites = (
        "auto: on CPUs, traced graphs replace some convolutions by exact rewrites that need less work. off:"
        " graphs compute every operation as it is written."
    )
    flags.DEFINE_enum("lowering", "auto", lowering.MODES, rewrites, **own)
    flags.DEFINE_bool("xla", False, "Compile a training step with XLA.", **own)
    devices = "One device, all GPUs of this machine, or those of all machines in TF_CONFIG."
    flags.DEFINE_enum("strategy", "single", distribution.STRATEGIES, devices, **own)
    resident = (
        "Keep all decoded training images in the device's memory: for a GPU that outruns the processor."
    )
    flags.DEFINE_bool("data_on_device", False, resident, **own)
    same = (
        "Same seed, same weights, bit for bit. Default: yes on a CPU without --xla, where it is free; on a"
        " GPU some ops are slower for it."
    )
    flags.DEFINE_bool("deterministic", None, same, **own)
    no_gradient = "--xla has no deterministic gradient of max-pooling: leave one of them out"
    needs("xla", "deterministic", [None, False], no_gradient)
    for flag in ("xla", "data_on_device"):
        needs(flag, "strategy", ["single"], f"--{flag} is for one device: leave it or --strategy out")
