"""Load the experiment, the flags and the trained weights of a run from its run folder."""

import dataclasses
import os
from pathlib import Path

import tensorflow as tf
from absl import flags

from core import lowering
from core.experiment import Experiment
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import cli, device
from core.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run.

    experiment:  the `Experiment` that the run trained.
    flags:       the flags of the training. `restore` describes the flags whose values it may change.
    weights:     name -> tf.Variable: the trained weights, for `experiment.forward`.
    dtype:       the dtype of the activations.
    checkpoint:  the path of the checkpoint file that the weights were read from.
    epoch:       the number of complete epochs that the weights were trained for.
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
    """Define the flags --run_dir, --checkpoint and --lowering of evaluate, predict and export."""
    own = {"flag_values": values}
    run_dir = "Folder of a trained run, such as runs/cityscape_road."
    flags.DEFINE_string("run_dir", None, run_dir, **own)
    weights = (
        "Which weights of the run to use. best: the weights after the epoch with the best validation metric."
        " last: the latest weights. With --ema_decay, both are moving averages of the weights."
    )
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], weights, **own)
    replaced = f"{lowering.HELP} Exported models contain no replacements."
    flags.DEFINE_enum("lowering", "auto", lowering.MODES, replaced, **own)


def restore(values, module_of, *, data=False, data_dir=None, limit=True):
    """Load a run folder as a `Run`, and set up the device and the lowering mode of this process.

    values: the parsed flags of `define_flags`: the run folder, the checkpoint and the lowering mode.
    module_of: a function that returns the module of an experiment, given the name of the experiment.
    data: True if the caller reads the run's images. If False, the run's data folder may be missing, and the
    run's flags --data_dir and --limit are ignored.
    data_dir: a data folder that replaces the run's --data_dir. Then the run's --limit is ignored too.
    limit: if False, the run's --limit is ignored.
    Prints a warning if the code has changed since the training. If the run's --cache_dir does not exist, the
    flag --cache_dir of the result has its default. Raises InputError if --run_dir is not given or is not a
    run folder, if flags.cfg is damaged, if the checkpoint is missing or damaged, or if the names, shapes or
    dtypes of the variables in the checkpoint differ from those of the network.
    """
    if not values.run_dir:
        raise InputError("--run_dir: name the folder of a run, such as runs/cityscape_road.")
    folder = Path(values.run_dir)
    name = run_folder.experiment_name(folder)
    try:
        module = module_of(name)
    except InputError as error:
        raise InputError(f"{folder / 'flags.cfg'}: the first line must name an experiment: {error}") from None
    without = ()
    if data_dir or not data:
        without = ("data_dir", "limit")
    elif not limit:
        without = ("limit",)
    run_flags = run_folder.read_flags(folder, module.define_flags, without=without)
    if not os.path.isdir(run_flags.cache_dir):  # the cache was deleted, or the run comes from another machine
        run_flags.cache_dir = run_flags["cache_dir"].default
    if data_dir:
        cli.read(run_flags, ["", f"--data_dir={data_dir}"])
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
