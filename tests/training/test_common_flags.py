"""Bad flag values are refused when they are parsed; the defaults are the articles' settings."""

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
def test_a_bad_flag_value_is_refused_and_named(argument, expected):
    with pytest.raises(InputError, match=expected):
        cli.parse(cityscape_road.define_flags, [argument])


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
