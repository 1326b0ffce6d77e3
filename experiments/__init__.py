"""One script per article, and one per command that uses trained runs.

`load` and `train` offer from Python what the scripts offer on the command line.
"""

import importlib
import pkgutil

import core  # noqa: F401  must precede TensorFlow's import by any script: core hides its start-up messages
from core.runtime.errors import InputError


def article(name):
    """Return the module of an experiment by name; the module defines `define_flags` and `experiment`.

    Raises InputError if this package has no module of that name, or if the module is not an experiment.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    module = importlib.import_module(f"experiments.{name}") if name in names else None
    if not hasattr(module, "experiment"):
        raise InputError(f"there is no experiment {name!r}.")
    return module


def load(run_dir, checkpoint="best"):
    """Return the `core.inference.restore.Run` in a run folder: experiment, flags and trained weights.

    checkpoint: "best" or "last". Raises InputError if the folder is not a run folder.
    """
    from core.inference import restore
    from core.runtime import cli

    flags = cli.parse(restore.define_flags, [f"--run_dir={run_dir}", f"--checkpoint={checkpoint}"])
    return restore.restore(flags, article)


def train(script, *arguments):
    """Train an experiment, or continue its training; return the exit code, 0 if the training has ended.

    script: the experiment's module, such as `experiments.cityscape_road`. arguments: flags as on the
    command line.
    """
    from core.runtime import cli
    from core.training import loop

    flags = cli.parse(script.define_flags, arguments)
    return loop.run(script.experiment(flags), script.define_flags, flags)
