"""Load the experiment, flags and trained weights of a run folder."""

import dataclasses
from pathlib import Path

import tensorflow as tf
from absl import flags

from core import lowering
from core.experiment import Experiment
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import device
from core.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run.

    experiment:  the `Experiment` that the flags define.
    flags:       the flags of the training.
    weights:     name -> tf.Variable, for `experiment.forward`.
    dtype:       the dtype of activations.
    checkpoint:  the file of the weights.
    epoch:       number of epochs that the weights were trained for.
    """

    experiment: Experiment
    flags: flags.FlagValues
    weights: dict
    dtype: tf.DType
    checkpoint: Path
    epoch: int

    @property
    def folder(self):
        """The run folder."""
        return self.checkpoint.parent.parent


def define_flags(values):
    """Define the flags that choose the trained weights, for evaluate, predict and export."""
    flags.DEFINE_string("run_dir", None, "Folder of a trained run.", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint",
        "best",
        ["best", "last"],
        "best: the weights of the epoch with the best validation metric; last: the latest weights.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "lowering",
        "auto",
        lowering.MODES,
        "auto: on CPUs, convolutions may be replaced by equal ones of fewer operations; off: as written.",
        flag_values=values,
    )


def restore(values, article, *, data=False, data_dir=None, limit=True):
    """Return the `Run` selected by parsed flags of `define_flags`.

    article: a function from an experiment's name to its module. data: True if the run's data are
    needed; if False, their folder may be missing. data_dir: a folder to use instead of the run's, without
    the run's --limit. limit: False also drops --limit. Raises InputError for a folder that is not a
    run folder, a missing checkpoint, and weights that do not fit the network.
    """
    if not values.run_dir:
        raise InputError("--run_dir: name the folder of a run, such as runs/cityscape_road.")
    folder = Path(values.run_dir)
    name = run_folder.experiment_name(folder)
    try:
        module = article(name)
    except InputError as error:
        raise InputError(f"{folder / 'flags.cfg'}: the first line must name an experiment: {error}") from None
    other_data = bool(data_dir) or not data
    without = ("data_dir", "limit") if other_data else () if limit else ("limit",)
    extra = [f"--data_dir={data_dir}"] if data_dir else []
    run_flags = run_folder.read_flags(folder, module.define_flags, without=without, extra=extra)
    run_flags.run_dir = str(folder)  # the folder may have moved
    path = folder / "checkpoints" / f"{values.checkpoint}.npz"
    arrays, state = checkpoint.load(path)
    device.set_up(run_flags)
    lowering.configure(values.lowering)
    experiment = module.experiment(run_flags)
    code_digest.warn_if_changed(folder, experiment)
    weights = experiment.init_weights(seed=run_flags.seed)
    checkpoint.restore(weights, checkpoint.prediction_variables(arrays), path)
    dtype = tf.dtypes.as_dtype(run_flags.precision)
    return Run(experiment, run_flags, weights, dtype, path, state.get("epoch", 0))
