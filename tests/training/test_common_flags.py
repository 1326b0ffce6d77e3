"""Flags that make no sense are refused when they are parsed, in words."""

import pytest

from core.runtime import cli
from core.runtime.errors import InputError
from experiments import cityscape_road, cityscapes_labels


@pytest.mark.parametrize(
    "argument, expected",
    [
        ("--epochs=0", "epochs"),
        ("--batch_size=-1", "batch_size"),
        ("--batch_size=many", "batch_size"),
        ("--learning_rate=0", "learning_rate"),
        ("--size=100", "multiple of 16"),
        ("--road_rgb=128,64", "road_rgb"),
        ("--road_rgb=128,64,999", "road_rgb"),
        ("--road_tolerance=256", "road_tolerance"),
        ("--precision=float8", "precision"),
        ("--data_dir=/no/such/folder", "data_dir"),
        ("--run_dir=", "run_dir"),
        ("--cache_dir=two\nlines", "cache_dir"),
        ("--no_such_flag", "no_such_flag"),
        ("--flagfile=/no/such.cfg", "no/such.cfg"),
    ],
)
def test_senseless_flags(argument, expected):
    with pytest.raises(InputError, match=expected):
        cli.parse(cityscape_road.define_flags, [argument])


def test_flags_that_contradict_each_other():
    with pytest.raises(InputError, match="--resize must not be below --size"):
        cli.parse(cityscapes_labels.define_flags, ["--size=288"])


@pytest.mark.parametrize(
    "define_flags, expected",
    [
        (cityscape_road.define_flags, (25, 5, 128, 1e-3)),
        (cityscapes_labels.define_flags, (60, 32, 256, 1e-3)),
    ],
)
def test_defaults_are_the_articles(define_flags, expected):
    flags = cli.parse(define_flags)
    assert (flags.epochs, flags.batch_size, flags.size, flags.learning_rate) == expected
