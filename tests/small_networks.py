"""The U-Nets with few levels and channels, for tests that do not need full-size networks."""

import functools


def small(module, *, filters=(4, 8), **options):
    """Return the `Experiment` fields init_weights and forward for a model module with other filters.

    options: keyword arguments of the module's `init_weights`, such as classes.
    """
    return {
        "init_weights": functools.partial(module.init_weights, filters=filters, **options),
        "forward": functools.partial(module.forward, depth=len(filters) - 1),
    }
