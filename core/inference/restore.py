"""A run folder -> the experiment it is of, with its flags and trained weights."""

import dataclasses
from pathlib import Path

import tensorflow as tf
from absl import flags

from core.experiment import Experiment
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import device
from core.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds. dtype is that of its activations."""

    experiment: Experiment
    flags: flags.FlagValues
    weights: dict
    dtype: tf.DType
    checkpoint: Path


def define_flags(values):
    """Which weights to take: the flags that evaluate, predict and export have in common."""
    flags.DEFINE_string("run_dir", None, "Folder of a run, as a training made it.", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint",
        "best",
        ["best", "last"],
        "The epoch with the best figure on the validation images, or where the training stands.",
        flag_values=values,
    )


def restore(values, article, *, data=False, data_dir=None):
    """`Run` of the parsed flags of `define_flags`.

    article: a function, name -> the module of that experiment. data: whether the
    run's data are wanted, which may be gone; data_dir takes their place, without
    the run's --limit. Raises InputError for a folder without a run or checkpoint,
    and weights that do not fit.
    """
    if not values.run_dir:
        raise InputError("--run_dir: name the folder of a run, such as runs/cityscape_road.")
    folder = Path(values.run_dir)
    name = run_folder.experiment_name(folder)
    try:
        module = article(name)
    except InputError as error:
        raise InputError(f"{folder / 'flags.cfg'}: the first line must name an experiment: {error}") from None
    run_flags = run_folder.read_flags(
        folder,
        module.define_flags,
        without=("data_dir", "limit") if data_dir or not data else (),
        extra=[f"--data_dir={data_dir}"] if data_dir else [],
    )
    path = folder / "checkpoints" / f"{values.checkpoint}.npz"
    arrays, _ = checkpoint.load(path)
    code_digest.warn_if_changed(folder, name)
    device.set_up(run_flags)
    experiment = module.experiment(run_flags)
    weights = experiment.init_weights(seed=run_flags.seed)
    checkpoint.restore(weights, checkpoint.prediction_variables(arrays), path)
    dtype = tf.dtypes.as_dtype(run_flags.precision)
    return Run(experiment, run_flags, weights, dtype, path)
