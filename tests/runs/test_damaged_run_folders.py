"""Run folders that are damaged, or cannot be written, are refused by training and by restoring."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import refused, road_flags
from damage import NOT_FILES, cut, delete, overwrite, png, replace_by

import experiments
from core.runs import checkpoint, run_folder
from core.runtime import files
from experiments import cityscape_road

pytestmark = pytest.mark.usefixtures("limits")


def claim(run_dir, *arguments):
    """Begin or continue the run in run_dir, as a training does, without training."""
    values = road_flags(run_dir, *arguments)
    with run_folder.claim(run_dir, "cityscape_road", cityscape_road.define_flags, values):
        pass


def load(run_dir):
    """Restore the run in run_dir, as `evaluate`, `predict` and `export` do."""
    experiments.load(run_dir, "last")


both_uses = pytest.mark.parametrize("use", [claim, load])


@pytest.fixture
def run(tmp_path):
    """Return a run folder of cityscape_road whose checkpoint has no weights of the road network."""
    claim(tmp_path / "run")
    checkpoint.save(tmp_path / "run/checkpoints", {"conv1": np.zeros([2, 3], np.float32)}, {"epoch": 1})
    return tmp_path / "run"


def edit(old, new):
    """Return a function (path) that replaces the first occurrence of the text `old` in the file by `new`."""
    return lambda path: path.write_text(path.read_text().replace(old, new, 1), newline="")


FLAGS_CFG = {
    **NOT_FILES,
    "missing": delete,
    "empty": overwrite(b""),
    "a PNG": overwrite(png(4, 4, bytes(20))),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "without the experiment's name": edit("# python -m experiments.cityscape_road\n", ""),
    "only the experiment's name": overwrite(b"# python -m experiments.cityscape_road\n"),
    "of another experiment": edit("cityscape_road", "oxford_pets"),
    "of an unknown experiment": edit("cityscape_road", "rail"),
    "of a command": edit("cityscape_road", "export"),
    "of a path": edit("cityscape", "../cityscape"),
    "an unknown flag": edit("--size", "--rails=2\n--size"),
    "a value out of range": edit("--size=32", "--size=33"),
    "a flag without dashes": edit("--size", "size"),
    "a flag without its value": edit("--size=32", "--size="),
    "a zero byte": edit("run_dir=", "run_dir=\0"),
    "without its last lines": lambda path: path.write_text(path.read_text().partition("--seed")[0]),
}


@both_uses
@pytest.mark.parametrize("damage", FLAGS_CFG.values(), ids=FLAGS_CFG)
def test_a_damaged_flags_cfg_is_refused(run, damage, use):
    damage(run / "flags.cfg")
    with refused("flags.cfg" if use is load else run):  # a later error of load would name another file
        use(run)


@both_uses
def test_a_truncated_flags_cfg_is_refused(run, use):
    path = run / "flags.cfg"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 40):
        path.write_bytes(whole[:length])
        with refused("flags.cfg" if use is load else run):
            use(run)


UNUSUAL_NOTATIONS = {
    "CRLF": edit("\n", "\r\n"),
    "blank lines and a comment": edit("--size", "\n  \n# a comment\n--size"),
    "no final line end": cut(0, 0.999),
    "without a flag that is newer": edit("--warmup_steps=0\n", ""),
}


@pytest.mark.parametrize("change", UNUSUAL_NOTATIONS.values(), ids=UNUSUAL_NOTATIONS)
def test_a_flags_cfg_in_another_notation_has_the_same_values(run, change):
    change(run / "flags.cfg")
    claim(run)
    found = run_folder.read_flags(run, cityscape_road.define_flags)
    expected = road_flags(run, f"--cache_dir={os.path.abspath('cache')}")
    assert found.flag_values_dict() == expected.flag_values_dict()


IMPOSSIBLE_FOLDERS = {  # functions that put something else at the run folder's path
    "a file": Path.touch,
    "inside a file": lambda folder: replace_by(Path.touch)(folder.parent),
    "a link to itself": lambda folder: folder.symlink_to(folder),
    "a link into a missing folder": lambda folder: folder.symlink_to("no/where"),
    "a pipe": os.mkfifo,
    "checkpoints is a file": lambda folder: (folder.mkdir(), (folder / "checkpoints").touch()),
    "predictions is a file": lambda folder: (folder.mkdir(), (folder / "predictions").touch()),
    "flags.cfg is a folder": lambda folder: (folder / "flags.cfg").mkdir(parents=True),
    "the lock is a folder": lambda folder: (folder / ".lock").mkdir(parents=True),
}


@both_uses
@pytest.mark.parametrize("make", IMPOSSIBLE_FOLDERS.values(), ids=IMPOSSIBLE_FOLDERS)
def test_an_invalid_run_folder_is_refused(tmp_path, make, use):
    folder = tmp_path / "parent" / "run"
    folder.parent.mkdir()
    make(folder)
    with refused(folder):
        use(folder)


def test_a_file_name_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / ("a" * 250)
    with refused(path), files.atomic(path):
        pass


def test_unicode_line_separators_in_folder_names_survive_flags_cfg(tmp_path):
    for _ in range(2):
        claim(tmp_path / "run", f"--cache_dir={tmp_path}/line\u2028feed\x85")
    values = run_folder.read_flags(tmp_path / "run", cityscape_road.define_flags)
    assert values.cache_dir == f"{tmp_path}/line\u2028feed\x85"


def test_a_run_folder_whose_path_has_a_line_break_is_refused_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "two\nlines").mkdir()
    monkeypatch.chdir(tmp_path / "two\nlines")
    with refused("flags.cfg"):
        claim(Path("run"))
