"""Contradictory flags are refused; the defaults are the articles' settings."""

import pytest

from core.runtime import cli
from core.runtime.errors import InputError
from experiments import (
    cityscape_road,
    cityscapes_labels,
    dubai_aerial,
    oxford_pets,
    oxford_pets_mobilenet,
)


def test_contradictory_flags_are_refused():
    with pytest.raises(InputError, match="--resize must be at least --size"):
        cli.parse(cityscapes_labels.define_flags, ["--size=288"])


@pytest.mark.parametrize(
    "script, expected",
    [
        (cityscape_road, (25, 5, 128, 1)),
        (oxford_pets, (10, 64, 128, 0)),
        (oxford_pets_mobilenet, (20, 64, 128, 0)),
        (cityscapes_labels, (60, 32, 256, 0)),
        (dubai_aerial, (20, 32, 160, 0)),
    ],
)
def test_defaults_are_the_documented_settings(script, expected):
    flags = cli.parse(script.define_flags)
    side = flags.patch_size if script is dubai_aerial else flags.size
    assert (flags.epochs, flags.batch_size, side, flags.clip_norm) == expected
    assert flags.learning_rate == 1e-3
