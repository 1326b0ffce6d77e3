"""A run folder records the experiment's name and absolute paths; runs of other versions are refused."""

import functools
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest
from absl import flags
from conftest import ROOT

from core.runs import run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import cityscape_road, oxford_pets_mobilenet


def claim(script, *arguments, name="cityscape_road"):
    values = cli.parse(script.define_flags, arguments)
    with run_folder.claim(Path(values.run_dir), name, script.define_flags, values):
        return Path(values.run_dir) / "flags.cfg"


def test_an_experiment_must_have_the_name_of_its_script(tmp_path):
    """If a copied script kept the name `cityscape_road`, `evaluate` would load the original script."""
    copy = tmp_path / "my_city.py"
    copy.write_bytes((ROOT / "experiments/cityscape_road.py").read_bytes())
    spec = importlib.util.spec_from_file_location("my_city", copy)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "my_city", module)
        spec.loader.exec_module(module)
        with pytest.raises(InputError, match="my_city.py: .*'cityscape_road'; write name='my_city'"):
            claim(module, f"--run_dir={tmp_path / 'run'}")
        assert not (tmp_path / "run").exists()
        claim(module, f"--run_dir={tmp_path / 'run'}", name="my_city")


def test_a_run_is_usable_from_another_working_directory(tmp_path, monkeypatch):
    @functools.wraps(cityscape_road.define_flags)
    def define_flags(values):
        cityscape_road.define_flags(values)
        flags.DEFINE_string("split_file", None, "A flag of a user's experiment.", flag_values=values)

    for folder in ("here/pairs", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    arguments = ["--data_dir=pairs", "--run_dir=run", "--cache_dir=../cache", "--split_file=split.csv"]
    claim(types.SimpleNamespace(define_flags=define_flags), *arguments)
    monkeypatch.chdir(tmp_path / "elsewhere")
    read = run_folder.read_flags(tmp_path / "here/run", define_flags)
    paths = [Path(each) for each in (read.data_dir, read.run_dir, read.cache_dir, read.split_file)]
    assert paths == [tmp_path / path for path in ("here/pairs", "here/run", "cache", "here/split.csv")]
    assert cli.parse(define_flags, [f"--flagfile={read.run_dir}/flags.cfg"]).limit == 0


def test_a_weights_path_is_the_same_flag_value_in_another_working_directory(tmp_path, monkeypatch):
    (tmp_path / "weights.h5").touch()
    (tmp_path / "none").mkdir()  # a folder with the name of a value that is not a path
    monkeypatch.chdir(tmp_path)
    run_dir, name = f"--run_dir={tmp_path / 'run'}", "oxford_pets_mobilenet"
    path = claim(oxford_pets_mobilenet, run_dir, "--encoder_weights=weights.h5", name=name)
    assert f"--encoder_weights={tmp_path / 'weights.h5'}\n" in path.read_text()
    (path.parent / "checkpoints/last.npz").touch()  # a run with a checkpoint, whose flags must not change
    claim(oxford_pets_mobilenet, run_dir, "--encoder_weights=weights.h5", name=name)
    with pytest.raises(InputError, match="--encoder_weights .begun with .*weights.h5, now none"):
        claim(oxford_pets_mobilenet, run_dir, "--encoder_weights=none", name=name)


def test_the_message_says_that_a_run_is_of_another_version(tmp_path):
    path = claim(cityscape_road, f"--run_dir={tmp_path}")
    whole = path.read_text()
    # the file as older versions wrote it, without "# end"
    path.write_text(whole.removesuffix(f"{run_folder.END}\n"))
    with pytest.raises(InputError, match="flags.cfg: .* of an older version, .* add that line"):
        run_folder.read_flags(tmp_path, cityscape_road.define_flags)
    path.write_text(whole.replace("--epochs", "--passes"))
    with pytest.raises(InputError, match="flags.cfg: .*'passes'.* of another version"):
        run_folder.read_flags(tmp_path, cityscape_road.define_flags)


def test_json_writes_nan_and_infinity_as_null(tmp_path):
    metrics = {
        "final": {"val_loss": float("inf"), "val_iou": float("nan"), "epoch": 1},
        "sizes": [float("nan"), 2],
    }
    run_folder.write_json(tmp_path / "figures.json", metrics)
    assert json.loads((tmp_path / "figures.json").read_text()) == {
        "final": {"val_loss": None, "val_iou": None, "epoch": 1},
        "sizes": [None, 2],
    }
