"""Files that list classes or class weights are read, written and checked."""

import numpy as np
import pytest

from core.data import class_list
from core.runtime.errors import InputError


def written(tmp_path, text):
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_ids_and_colours_are_read_in_several_notations(tmp_path):
    ids = class_list.read(written(tmp_path, "# a comment\nbackground: 0\n\nego vehicle = 300\nzone 2 7\n"))
    assert ids.names == ("background", "ego vehicle", "zone 2") and not ids.coloured
    assert ids.values == ((0,), (300,), (7,))
    assert ids.palette[0] == (0, 0, 0) and len(set(ids.palette)) == 3
    text = "road: 128,64,128\ntree #6b8e23\nlow wall 70 71 72\nroad: 0, 0, 0\n"
    colours = class_list.read(written(tmp_path, text))
    assert colours.names == ("road", "tree", "low wall") and colours.coloured
    assert colours.values == ((0x804080, 0x000000), (0x6B8E23,), (0x464748,))
    assert colours.palette == ((128, 64, 128), (0x6B, 0x8E, 0x23), (70, 71, 72))


def test_a_written_class_list_is_read_back_unchanged(tmp_path):
    for original in (
        class_list.ClassList(("colour #804080", "b"), ((0x804080, 1), (0,)), True),
        class_list.ClassList(("class 0", "class 255"), ((0,), (255,)), False),
    ):
        text = class_list.to_text(original, ["class 0: 1,000 pixels, 12.00%"])
        assert class_list.read(written(tmp_path, text)) == original


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "0 classes"),
        ("one: 1\n", "1 classes"),
        ("a: 1\nb\n", "line 2: it must have the form NAME: VALUE"),
        ("a: 1\nroad: 7, 8\n", "line 2: it must have the form NAME: VALUE, with one id or one colour"),
        ("a: 1\nroad = 7 = 8\n", "line 2: it must have the form NAME: VALUE"),
        ("a: 1,2,3\nroad: 128,64,128,255\n", "line 2: it must have the form NAME: VALUE"),
        ("a: 1\nb: 1\n", "line 2: another line has the value 1"),
        ("a: 1\nb: 1,2,3\n", "some classes have ids"),
        ("a: 1\nb: 70000\n", "line 2: the value is neither an id"),
        ("a: 1,2,3\nb: 1,2,300\n", "line 2: the value is neither an id"),
        ("".join(f"c{n}: {n}\n" for n in range(256)), "256 classes"),
    ],
)
def test_invalid_class_lists_are_refused(tmp_path, text, reason):
    with pytest.raises(InputError, match=f"classes.txt: {reason}"):
        class_list.read(written(tmp_path, text))


@pytest.mark.parametrize("text", ["#123", "#1234567", "#12345g", "1,2", "1,2,256", "65536", "-1", ""])
def test_invalid_mask_values_are_refused(text):
    with pytest.raises(ValueError, match="neither an id from 0 to 65535 nor a colour"):
        class_list.parse_value(text)


def test_class_weights_must_name_each_class_once(tmp_path):
    path = written(tmp_path, class_list.weights_to_text(("a b", "c"), (0.1, 2.0)))
    assert class_list.read_weights(path, ("a b", "c")) == (0.1, 2.0)
    assert class_list.read_weights(path, ("c", "a b")) == (2.0, 0.1)
    with pytest.raises(InputError, match="check these names: c, d"):
        class_list.read_weights(path, ("a b", "d"))
    for line in ("a b: -1", "a b: many", "a b: nan", "a b"):
        with pytest.raises(InputError, match="line 1 is not NAME: WEIGHT"):
            class_list.read_weights(written(tmp_path, line), ("a b",))
    with pytest.raises(InputError, match="line 2: a already has a weight"):
        class_list.read_weights(written(tmp_path, "a: 1\na: 2"), ("a",))


def test_the_default_palette_is_the_palette_of_pascal_voc():
    assert [class_list.voc_colour(index) for index in (0, 1, 2, 3, 20)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 64, 128)
    ]  # fmt: skip
    assert len(np.unique([class_list.voc_colour(index) for index in range(256)], axis=0)) == 256
