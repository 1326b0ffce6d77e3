"""A run records the code it was trained with, and commands name the files that have changed since."""

import ast
import dataclasses
import functools
import json
import os
import shutil
import sys
import types

import pytest
from conftest import with_other_code

import experiments
from core import ops
from core.models import mobilenet_unet
from core.runs import code_digest
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import loop
from experiments import cityscape_road

pytestmark = pytest.mark.usefixtures("small_articles")
ROAD = cityscape_road.experiment(cli.parse(cityscape_road.define_flags))


def test_files_that_affect_results_have_a_digest_and_others_have_none():
    digests = code_digest.current(ROAD)
    decisive = """experiments/cityscape_road.py core/ops.py core/weights.py core/losses.py core/metrics.py
        core/models/road_unet.py core/data/cityscapes_pairs.py core/data/augment.py core/training/step.py
        core/training/loop.py core/training/history.py core/inference/evaluate.py""".split()
    assert set(decisive) <= digests.keys()
    assert any(name.startswith("core/lowering/") for name in digests)
    other = "core/runtime/", "core/runs/", "core/models/pets_unet", "core/data/synthetic/", "experiments/ox"
    assert not [name for name in digests if name.startswith(other)]


def test_the_network_has_a_digest_if_the_script_wraps_it_in_a_function():
    wrapped = dataclasses.replace(ROAD, forward=lambda *args, **options: ROAD.forward(*args, **options))
    assert "core/models/road_unet.py" in code_digest.current(wrapped)


def test_only_the_network_in_use_has_a_digest():
    init_weights = functools.partial(mobilenet_unet.init_weights, classes=3)
    own = dataclasses.replace(
        ROAD, name="own_images", forward=mobilenet_unet.forward, init_weights=init_weights
    )
    found = [name for name in code_digest.current(own) if ":" not in name]  # without the small FILTERS
    networks = [name for name in found if "models/" in name and "__init__" not in name]
    assert networks == ["core/models/mobilenet_unet.py", "core/models/mobilenet_v2.py"]


def test_a_module_of_parts_that_the_network_gets_from_the_script_has_a_digest(project, tmp_path):
    (tmp_path / "core/models/gates.py").write_text("def attention(x, skip):\n    return skip\n")
    script = "experiments/cityscape_road.py"
    digests = project(script, "import road_unet", "import gates, mobilenet_unet, road_unet")
    assert "core/models/gates.py" in digests and "core/models/mobilenet_unet.py" not in digests


@pytest.fixture
def project(tmp_path):
    """Copy the project's source files; return a function (path, old, new) -> hashes of the copied code.

    The function first replaces the first occurrence of the text `old` in the copied file by `new`.
    """
    for package in ("core", "experiments"):
        others = shutil.ignore_patterns("*.png", "*.cfg", "*.csv", "__pycache__")
        shutil.copytree(code_digest.ROOT / package, tmp_path / package, ignore=others)

    def edit(path, old, new):
        text = (tmp_path / path).read_text()
        assert old in text
        (tmp_path / path).write_text(text.replace(old, new, 1))
        return code_digest.current(ROAD, tmp_path)

    return edit


def test_an_edited_statement_changes_the_digest_and_a_comment_does_not(project):
    before = code_digest.current(ROAD)
    assert project("core/losses.py", '"""', '"""A new sentence.') == before
    assert (
        project("core/losses.py", "import tensorflow as tf", "import tensorflow as tf  # a comment") == before
    )
    edited = project("core/ops.py", "import tensorflow as tf", "import tensorflow as tf\n\nEDITED = 1")
    assert code_digest.changed_files(before, edited) == ["core/ops.py"]
    line = "from core.models import road_unet"
    edited = project("experiments/cityscape_road.py", line, f"{line}\nfrom core.data import oxford_pets")
    # the script now imports this file
    assert "core/data/oxford_pets.py" in code_digest.changed_files(before, edited)


def test_a_function_that_was_replaced_at_run_time_has_a_digest_of_its_own(monkeypatch):
    """An edit in a notebook replaces a function at run time and changes no source file."""
    before = code_digest.current(ROAD)
    # decorated functions are not replaced; the fixture small_articles replaces FILTERS
    assert not [name for name in before if ":" in name and "FILTERS" not in name]
    monkeypatch.setattr(ops, "conv2d_up", lambda x, kernel: ops.conv2d_transpose(x, kernel))
    linear = code_digest.current(ROAD)
    assert code_digest.changed_files(before, linear) == ["core/ops.py:conv2d_up"]
    monkeypatch.setattr(ops, "conv2d_up", lambda x, kernel: ops.conv2d_transpose(x, kernel) / 2)
    assert code_digest.changed_files(linear, code_digest.current(ROAD))


def test_replaced_constants_wrappers_and_default_arguments_have_digests(monkeypatch):
    def scaled(by):
        return functools.wraps(original)(lambda x, *, scale=by: scale * original(x))

    before, original = code_digest.current(ROAD), ops.maxpool_up
    monkeypatch.setattr(ops, "LEAK", 0.5)
    monkeypatch.setattr(ops, "maxpool_up", scaled(by=2))
    twice = code_digest.current(ROAD)
    assert code_digest.changed_files(before, twice) == ["core/ops.py:LEAK", "core/ops.py:maxpool_up"]
    monkeypatch.setattr(ops, "maxpool_up", scaled(by=3))
    assert code_digest.changed_files(twice, code_digest.current(ROAD)) == ["core/ops.py:maxpool_up"]


def test_a_wrapper_that_refers_to_itself_has_a_digest(monkeypatch):
    def counted(x):
        counted.calls += 1
        return original(x)

    before, original = code_digest.current(ROAD), ops.maxpool_up
    monkeypatch.setattr(ops, "maxpool_up", counted)
    assert code_digest.changed_files(before, code_digest.current(ROAD)) == ["core/ops.py:maxpool_up"]


def test_sets_are_compared_without_their_order(monkeypatch):
    """The order of a set of texts differs between processes. 0 and 8 have the same place in a small set."""
    first, second = {0, 8}, {8, 0}
    assert repr(first) != repr(second)
    monkeypatch.setitem(sys.modules, "core.made", types.SimpleNamespace(NAMES=first, PAIR=(first, 1)))
    same, other = "NAMES = {8, 0}\nPAIR = ({8, 0}, 1)", "NAMES = {8, 1}"
    assert not code_digest._replaced(ast.parse(same), "core/made.py")
    assert list(code_digest._replaced(ast.parse(other), "core/made.py")) == ["core/made.py:NAMES"]


def test_a_file_edited_after_the_start_of_the_process_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(code_digest.files, "STARTED", os.path.getmtime(ops.__file__) - 1)
    code_digest.record(tmp_path, ROAD, epoch=0, step=0, write=True)
    (warning,) = capsys.readouterr().out.splitlines()
    assert "core/ops.py" in warning and "restart Python" in warning


def test_code_whose_steps_were_lost_is_forgotten(tmp_path, monkeypatch, capsys):
    """A run is continued with other code, is killed before its next checkpoint, and gets its code back."""
    code_digest.record(tmp_path, ROAD, epoch=0, step=0, write=True)
    with monkeypatch.context() as patch:
        patch.setattr(ops, "LEAK", 0.5)
        code_digest.record(tmp_path, ROAD, epoch=1, step=0, write=True)
    assert "core/ops.py:LEAK changed" in capsys.readouterr().out and len(code_digest.read(tmp_path)) == 2
    code_digest.record(tmp_path, ROAD, epoch=1, step=0, write=True)
    assert not capsys.readouterr().out and len(code_digest.read(tmp_path)) == 1


def test_a_file_that_is_being_edited_is_named(project):
    with pytest.raises(InputError, match="core/ops.py: not valid Python"):
        project("core/ops.py", "import tensorflow as tf", "import tensorflow as")


@pytest.fixture
def run_with_other_code(road_run, tmp_path):
    """Return the folder of a copy of `road_run` in its state after the first epoch.

    The recorded hash of core/ops.py differs from the hash of the current file.
    """
    (item,) = code_digest.read(road_run)
    assert item["files"] == code_digest.current(ROAD) and item["epoch"] == 0
    run = with_other_code(road_run, tmp_path / "run")
    shutil.move(run / "checkpoints/previous.npz", run / "checkpoints/last.npz")
    return run


def test_a_run_continued_with_other_code_says_that_it_is_not_bit_identical(
    run_with_other_code, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "make_train_step", lambda *args, **options: lambda *batch: 1.0)
    flags = cli.parse(
        cityscape_road.define_flags,
        [f"--flagfile={run_with_other_code / 'flags.cfg'}", f"--run_dir={run_with_other_code}"],
    )
    assert loop.run(cityscape_road.experiment(flags), cityscape_road.define_flags, flags) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert "core/ops.py changed" in warning and "no longer bit-identical" in warning
    items = code_digest.read(run_with_other_code)
    assert [item["epoch"] for item in items] == [0, 1]
    assert items[1]["files"] == code_digest.current(ROAD)
    code_digest.record(run_with_other_code, ROAD, epoch=2, step=0, write=True)
    assert not capsys.readouterr().out and len(code_digest.read(run_with_other_code)) == 2


def test_using_a_run_with_other_code_names_the_files_that_changed(run_with_other_code, capsys):
    experiments.load(run_with_other_code)
    assert capsys.readouterr().out == (
        f"warning: {run_with_other_code} was trained with other code; files changed since then:"
        " core/ops.py.\n"
    )
    (run_with_other_code / "code.json").unlink()  # as in runs of versions without code.json
    experiments.load(run_with_other_code)
    assert not capsys.readouterr().out


def test_a_continued_run_warns_of_another_tensorflow(tmp_path, capsys):
    code_digest.record(tmp_path, ROAD, epoch=0, step=0, write=True)
    items = code_digest.read(tmp_path)
    items[0]["versions"]["tensorflow"] = "2.0"
    (tmp_path / "code.json").write_text(json.dumps(items))
    code_digest.record(tmp_path, ROAD, epoch=1, step=0, write=False)
    assert "tensorflow (2.0, now 2." in capsys.readouterr().out
    assert len(code_digest.read(tmp_path)) == 1  # because of write=False
