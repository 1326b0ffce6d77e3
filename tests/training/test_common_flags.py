"""Contradictory flags are refused; the defaults are the articles' settings."""

import pytest

from core.runtime import cli
from core.runtime.errors import InputError
from core.training.step import Recipe, recipe_from_flags
from experiments import (
    cityscape_road,
    cityscapes_labels,
    dubai_aerial,
    oxford_pets,
    oxford_pets_mobilenet,
)
from experiments.results import tables


def test_contradictory_flags_are_refused():
    with pytest.raises(InputError, match="--resize must be at least --size"):
        cli.parse(cityscapes_labels.define_flags, ["--size=288"])


@pytest.mark.parametrize(
    "script, expected, clip_norm, changes",
    [
        (cityscape_road, (25, 5, 128), 1, []),
        (oxford_pets, (10, 64, 128), 0, ["flip"]),
        (oxford_pets_mobilenet, (20, 64, 128), 0, ["flip"]),
        (cityscapes_labels, (60, 32, 256), 0, ["random_crop", "flip"]),
        (dubai_aerial, (20, 32, 160), 0, []),
    ],
)
def test_defaults_are_the_documented_settings(script, expected, clip_norm, changes):
    """changes: the names of the experiment's own augmentations."""
    flags = cli.parse(script.define_flags)
    side = flags.patch_size if script is dubai_aerial else flags.size
    assert (flags.epochs, flags.batch_size, side) == expected
    assert recipe_from_flags(flags, steps=1) == Recipe(1e-3, clip_norm)
    assert (flags.augment, flags.early_stopping_patience, flags.precision) == ([], 0, "float32")
    own = script.experiment(flags).augment
    assert [getattr(change, "func", change).__name__ for change in own] == changes
    made = script.experiment(flags)
    assert [f"val_{made.best}"] == [each.best for each in tables.ARTICLES if each.experiment == made.name]
    others = {"white_level": 4095, "clean_labels": True, "colour_tolerance": 9, "resize": 300}
    names = others.keys() & set(flags)
    for name in names:
        flags[name].value = others[name]
    settings = script.experiment(flags).dataset.settings
    for name in names:
        assert settings["train_size" if name == "resize" else name] == others[name], name
