"""One script per article, and one per command that uses trained runs.

`load` and `train` do from Python what the scripts do from the command line.
"""

import importlib
import pkgutil

import core  # noqa: F401  before any script imports TensorFlow: core hides its start-up messages
from core.runtime.errors import InputError


def article(name):
    """Return the module of an experiment, which has `define_flags` and `experiment`, by its name.

    Raises InputError if this package has no module of that name, or if the module is not an experiment.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    module = importlib.import_module(f"experiments.{name}") if name in names else None
    if not hasattr(module, "experiment"):
        raise InputError(f"there is no experiment {name!r}.")
    return module


def load(run_dir, checkpoint="best"):
    """Return the `core.inference.restore.Run` in a run folder: experiment, flags and trained weights.

    checkpoint: "best" or "last". Raises InputError if the folder is not a run's.
    """
    from core.inference import restore
    from core.runtime import cli

    flags = cli.parse(restore.define_flags, [f"--run_dir={run_dir}", f"--checkpoint={checkpoint}"])
    return restore.restore(flags, article)


def train(script, *arguments):
    """Train an experiment, or continue it; return the exit code, 0 at the end of the run.

    script: its module, such as `experiments.cityscape_road`. arguments: flags as on the command line.
    """
    from core.runtime import cli
    from core.training import loop

    flags = cli.parse(script.define_flags, arguments)
    return loop.run(script.experiment(flags), script.define_flags, flags)
