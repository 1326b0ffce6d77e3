"""One script per article, and one script per command, such as evaluate or benchmark.

From Python, `train` trains an experiment and `load` returns the network of a trained run.
"""

import importlib
import pkgutil

import core  # noqa: F401  hides TensorFlow's start-up messages if it is imported before TensorFlow
from core.runtime.errors import InputError


def article(name):
    """Import and return the module of an experiment, which defines `define_flags` and `experiment`.

    name: the module's name in this package, such as "cityscape_road". Raises InputError if this package
    has no module of that name, or if the module is not an experiment.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    module = importlib.import_module(f"experiments.{name}") if name in names else None
    if not hasattr(module, "experiment"):
        raise InputError(f"there is no experiment {name!r}.")
    return module


def load(run_dir, checkpoint="best"):
    """Restore a trained run; return its experiment, flags and weights as a `core.inference.restore.Run`.

    run_dir: the run folder. checkpoint: "best" for the epoch with the best validation metric, or "last".
    Raises InputError if run_dir is not a run folder, lacks this checkpoint or does not fit the network.
    """
    from core.inference import restore
    from core.runtime import cli

    flags = cli.parse(restore.define_flags, [f"--run_dir={run_dir}", f"--checkpoint={checkpoint}"])
    return restore.restore(flags, article)


def train(script, *arguments):
    """Train an experiment, or continue the training in its run folder; return the exit code.

    script: the experiment's module, such as `experiments.cityscape_road`. arguments: flags as on the
    command line, such as "--epochs=5". The exit code is 0 after a complete training, and 130 or 143 if
    SIGINT or SIGTERM stopped it; its state is then saved.
    """
    from core.runtime import cli
    from core.training import loop

    flags = cli.parse(script.define_flags, arguments)
    return loop.run(script.experiment(flags), script.define_flags, flags)
