"""One script per article, and one per command that uses trained runs."""

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
