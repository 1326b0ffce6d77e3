"""The command line end to end, in separate processes, on generated data."""

import configparser
import fnmatch
import io
import json
import os
import subprocess
import sys

import pytest
from absl import flags
from conftest import ROOT, python, refused
from PIL import Image

from core.runtime import cli
from experiments import cityscape_road
from experiments.results import tables


def test_road_learns_generated_scenes_and_its_run_segments_photos(shared_cache, tmp_path):
    """The network has as many parameters as the road article's.

    The command must work although the user's Keras settings name other backends than TensorFlow.
    """
    run = tmp_path / "run"
    sizes = ["--limit=80", "--batch_size=4", "--epochs=1", "--size=32"]
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text('{"backend": "torch"}')
    other = {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "KERAS_HOME": str(tmp_path / ".keras")}
    folders = [f"--run_dir={run}", f"--cache_dir={shared_cache}"]
    environment = os.environ | other
    environment.pop("TF_CPP_MIN_LOG_LEVEL")  # which tests/conftest.py sets
    done = python("experiments.cityscape_road", *sizes, *folders, env=environment)
    assert done.returncode == 0, done.stderr
    # TensorFlow's start-up messages are hidden; Matplotlib may report its font cache
    assert not [line for line in done.stderr.splitlines() if "matplotlib" not in line.lower()]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cityscape_road: 1,961,152 parameters")
    assert any("80 training and 80 validation images" in line for line in lines)
    assert str(run / "predictions") in lines[-1]
    assert json.loads((run / "summary.json").read_text())["best"]["val_iou"] > 0.5

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 30)).save(photos / "a.png")
    (photos / "b.jpg").write_text("not an image")
    done = python("experiments.predict", f"--run_dir={run}", f"--output_dir={tmp_path / 'out'}", photos)
    assert done.returncode == 1
    assert done.stderr.startswith(f"skipped: {photos / 'b.jpg'}: ") and done.stderr.count("\n") == 1
    assert Image.open(tmp_path / "out/a_labels.png").size == (40, 30)
    assert "1 images in" in done.stdout and "network" in done.stdout


def test_help_lists_the_flags_with_their_defaults():
    done = python("experiments.cityscape_road", "-h")
    assert "segments the road in street photos" in done.stdout and "--[no]deterministic" in done.stdout
    assert "default: '128,64,128'" in done.stdout and "default: '25'" in done.stdout
    assert "--[no]best" in done.stdout and done.returncode == 0


def test_a_closed_pipe_ends_a_command_without_a_message():
    command = [sys.executable, "-m", "experiments.evaluate", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def command_line(best, *arguments):
    """Parse a command line of cityscape_road; return the flags. best: the file that --best reads."""
    values = flags.FlagValues()
    cityscape_road.define_flags(values)
    cli._define_options(values, best)
    cli.read_command_line(values, ["road.py", *arguments], best)
    return values


def test_version_and_best_are_carried_out_in_all_accepted_forms(tmp_path, capsys):
    best = tmp_path / "road.cfg"
    arguments = ["--epochs=3", "--best", "--dice=2"]
    with refused("best"):  # there is no such flagfile
        command_line(best, *arguments)
    best.write_text("--dice=1\n--ema_decay=0.9\n--epochs=7\n")
    values = command_line(best, *arguments)
    assert (values.epochs, values.dice, values.ema_decay) == (3, 2, 0.9)  # the command line takes precedence
    (tmp_path / "some.cfg").write_text("--best\n--version\n")
    for argument in ("--version", "-version", "--version=true", f"--flagfile={tmp_path / 'some.cfg'}"):
        with pytest.raises(SystemExit):
            command_line(best, argument)
        assert capsys.readouterr().out.startswith("raw-unet 0.")


@pytest.mark.parametrize("argument", ["-best", "--best=true", "--flagfile=some.cfg"])
def test_other_forms_of_best_are_refused(tmp_path, monkeypatch, argument):
    monkeypatch.chdir(tmp_path)
    for name in ("road.cfg", "some.cfg"):
        (tmp_path / name).write_text("--best\n" if name == "some.cfg" else "--epochs=7\n")
    with refused("--best"):
        command_line(tmp_path / "road.cfg", argument)


def test_characters_that_stdout_cannot_represent_are_printed_as_escapes(monkeypatch, exit_message):
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert exit_message(lambda values: print("stra\xdfe\udcff") or 143) == 143
    assert printed.getvalue().strip() == rb"stra\xdfe\udcff"


def test_ctrl_c_ends_a_command_with_130(exit_message):
    def interrupted(values):
        raise KeyboardInterrupt

    assert exit_message(interrupted) == 130


def test_an_installation_contains_every_module_the_best_settings_and_the_results():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    included = config["options.packages.find"]["include"].split()
    for module in [*ROOT.glob("core/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        package = ".".join(module.relative_to(ROOT).parent.parts)
        assert any(fnmatch.fnmatch(package, pattern) for pattern in included), module
    patterns = config["options.package_data"]["experiments"].split(", ")
    data = {path for pattern in patterns for path in ROOT.glob(f"experiments/{pattern}")}
    assert data == {*ROOT.glob("experiments/**/*.cfg"), *tables.FOLDER.glob("*.csv")}
    assert len([path for path in data if path.suffix == ".cfg"]) == 5
