"""The experiments, each with its own script, and the other commands, such as `evaluate` and `benchmark`.

`python -m experiments` lists all of them. From Python, `train` trains an experiment, and `load` returns the
experiment, the flags and the weights of a trained run.
"""

import importlib
import pkgutil

import core  # noqa: F401  TensorFlow prints no start-up messages if `core` is imported before TensorFlow
from core.runtime.errors import InputError


def article(name):
    """Import and return the module of an experiment, which defines `define_flags` and `experiment`.

    name: the module's name in this package, such as "cityscape_road". Raises InputError if this package
    has no module of that name, or if the module does not define `experiment`.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    module = importlib.import_module(f"experiments.{name}") if name in names else None
    if not hasattr(module, "experiment"):
        raise InputError(f"there is no experiment {name!r}; python -m experiments lists them.")
    return module


def load(run_dir, checkpoint="best", *, data=False):
    """Restore a trained run; return its experiment, flags and weights as a `core.inference.restore.Run`.

    run_dir: the folder to which the training wrote the run. checkpoint: "best": the weights after the epoch
    with the best validation metric; "last": the latest weights. data: if False, the run's data folder may be
    missing, and the returned flags --data_dir and --limit have their defaults (generated images, all files);
    if True, they have the run's values.
    The run's flags --deterministic and --xla decide whether TensorFlow's ops are deterministic in this
    process from now on. By default, the ops are deterministic on CPUs without --xla. On GPUs, they are not
    deterministic by default, even if you enabled determinism before. While ops are deterministic, random ops
    without a seed raise RuntimeError, so call tf.random.set_seed. The rules of `core.lowering` are enabled.
    Raises InputError if run_dir is not the folder of a run, if the checkpoint is missing or damaged, or if
    the weights in the checkpoint do not fit the network.
    """
    from core.inference import restore
    from core.runtime import cli

    flags = cli.parse(restore.define_flags, [f"--run_dir={run_dir}", f"--checkpoint={checkpoint}"])
    return restore.restore(flags, article, data=data)


def train(script, *arguments):
    """Train an experiment, or continue the training if --run_dir has a checkpoint; return an exit code.

    script: the experiment's module, such as `experiments.cityscape_road`. arguments: flags as on the
    command line, such as "--epochs=5", but not --help, --version or --best. The exit code is 0 after a
    complete training, 130 if SIGINT stopped the training, and 143 if SIGTERM stopped it. A stopped training
    saves a checkpoint before it ends.
    """
    from core.runtime import cli
    from core.training import loop

    flags = cli.parse(script.define_flags, arguments)
    own_train = getattr(script, "train", train)  # a script may have imported this function under its name
    if own_train is not train:  # own_images also writes the classes of a new run to the run folder
        return own_train(flags)
    return loop.run(script.experiment(flags), script.define_flags, flags)
