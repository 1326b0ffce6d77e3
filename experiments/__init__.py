"""One script per article, then one per verb."""

import importlib
import pkgutil

import core  # noqa: F401  before any script imports TensorFlow: core silences its start-up
from core.runtime.errors import InputError


def article(name):
    """The module of an experiment, with its `define_flags` and `experiment`, by its name.

    Raises InputError if no module of this package is called that, or it is a verb.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    module = importlib.import_module(f"experiments.{name}") if name in names else None
    if not hasattr(module, "experiment"):
        raise InputError(f"there is no experiment {name!r}.")
    return module
