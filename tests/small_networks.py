"""Networks with few levels and channels, for tests that do not need the articles' networks."""

import contextlib
import functools

import pytest

from core.models import dubai_unet, labels_unet, mobilenet_unet, mobilenet_v2, pets_unet, road_unet

FILTERS = (4, 8)  # channels of each level
BLOCKS = ((8, 1), (8, 2), (8, 1), (8, 2), (8, 2), (12, 2), (16, 1))  # (output channels, stride)
MOBILENET = {"BLOCKS": BLOCKS, "TAPS": (1, 3, 4, 5), "TAP_CHANNELS": (48, 48, 48, 48, 16)}


def small(module, *, filters=FILTERS, **options):
    """Return a dict with the `Experiment` fields init_weights and forward of a small network.

    module: a module of `core.models`, which defines the architecture. filters: the number of channels of each
    level. options: keyword arguments of the module's `init_weights`, such as classes.
    """
    return {
        "init_weights": functools.partial(module.init_weights, filters=filters, **options),
        "forward": functools.partial(module.forward, depth=len(filters) - 1),
    }


@contextlib.contextmanager
def small_articles():
    """Context manager in which every experiment and every restored run has a small network.

    The context manager changes the default arguments of the functions in `core.models`, the tables of
    MobileNetV2, and FILTERS of `mobilenet_unet`.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (road_unet, pets_unet, labels_unet, dubai_unet):
            patch.setitem(module.init_weights.__kwdefaults__, "filters", FILTERS)
            patch.setitem(module.forward.__kwdefaults__, "depth", len(FILTERS) - 1)
        for name, value in MOBILENET.items():
            patch.setattr(mobilenet_v2, name, value)
        patch.setattr(mobilenet_unet, "FILTERS", (4, 4, 8, 8))
        yield
