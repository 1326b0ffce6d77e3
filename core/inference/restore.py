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

    experiment:  the `Experiment` that the run trained.
    flags:       the flags of the training.
    weights:     name -> tf.Variable: the trained weights, for `experiment.forward`.
    dtype:       the dtype of the activations.
    checkpoint:  the path of the checkpoint file that the weights were read from.
    epoch:       the number of epochs that the weights were trained for.
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
    flags.DEFINE_string(
        "run_dir", None, "Folder of a trained run, such as runs/cityscape_road.", flag_values=values
    )
    flags.DEFINE_enum(
        "checkpoint",
        "best",
        ["best", "last"],
        "Which weights of the run to use. best: the weights after the epoch with the best validation metric."
        " last: the latest weights.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "lowering",
        "auto",
        lowering.MODES,
        "auto: on CPUs, compiled functions replace some convolutions by faster computations with the same"
        " result up to rounding. off: TensorFlow computes every operation as it is written.",
        flag_values=values,
    )


def restore(values, article, *, data=False, data_dir=None, limit=True):
    """Load the `Run` in a run folder.

    values: parsed flags of `define_flags`: the run folder, the checkpoint and the lowering mode.
    article: a function: name of an experiment -> module of the experiment.
    data: False if the caller needs no images; then the run's data folder may be missing.
    data_dir: a data folder to use instead of the run's data folder. In this case, and if limit is False,
    the run's flag --limit is ignored.
    Prints a warning if the code has changed since the training. Raises InputError if the folder is not a
    run folder, if the checkpoint is missing or damaged, and if its weights do not fit the network.
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
