"""Defaults are the articles', and flags that contradict each other are refused."""

import pytest

from core import settings
from core.errors import InputError
from experiments import cityscape_road, cityscapes_labels


def test_flags_that_contradict_each_other():
    with pytest.raises(InputError, match="--resize must not be below --size"):
        settings.parse(cityscapes_labels.define_flags, ["--size=288"])


@pytest.mark.parametrize(
    "define_flags, expected",
    [
        (cityscape_road.define_flags, (25, 5, 128, 1e-3)),
        (cityscapes_labels.define_flags, (60, 32, 256, 1e-3)),
    ],
)
def test_defaults_are_the_articles(define_flags, expected):
    flags = settings.parse(define_flags)
    assert (flags.epochs, flags.batch_size, flags.size, flags.learning_rate) == expected
