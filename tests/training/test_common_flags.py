"""Contradictory flags are refused; the defaults are the articles' settings."""

import pytest

from core.runtime import cli
from core.runtime.errors import InputError
from experiments import cityscape_road, cityscapes_labels


def test_contradictory_flags_are_refused():
    with pytest.raises(InputError, match="--resize must be at least --size"):
        cli.parse(cityscapes_labels.define_flags, ["--size=288"])


@pytest.mark.parametrize(
    "define_flags, expected",
    [
        (cityscape_road.define_flags, (25, 5, 128, 1e-3)),
        (cityscapes_labels.define_flags, (60, 32, 256, 1e-3)),
    ],
)
def test_defaults_equal_the_articles_settings(define_flags, expected):
    flags = cli.parse(define_flags)
    assert (flags.epochs, flags.batch_size, flags.size, flags.learning_rate) == expected
