"""The U-Nets with few levels and channels, for tests that need a network but not its size."""

import functools


def small(module, *, filters=(4, 8), **options):
    """{"init_weights", "forward"} of a model module with other filters: fields of an `Experiment`.

    options: keyword arguments of the module's `init_weights`, such as classes.
    """
    return {
        "init_weights": functools.partial(module.init_weights, filters=filters, **options),
        "forward": functools.partial(module.forward, depth=len(filters) - 1),
    }
