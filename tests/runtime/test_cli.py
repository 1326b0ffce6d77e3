"""The command line end to end, in separate processes, on generated data."""

import configparser
import fnmatch
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, python
from PIL import Image

from core.runtime import cli
from experiments import cityscape_road


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
    done = python("experiments.cityscape_road", *sizes, *folders, env=os.environ | other)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # TensorFlow's start-up messages are hidden
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


def test_version_and_best_are_handled_before_the_flags_are_parsed(tmp_path, capsys):
    best = tmp_path / "road.cfg"
    arguments = ["road.py", "--epochs=3", "--best", "--dice=2"]
    assert cli._expanded(arguments, best) == arguments  # there is no such flagfile
    best.write_text("--dice=1\n--ema_decay=0.9\n--epochs=7\n")
    flags = cli.parse(cityscape_road.define_flags, cli._expanded(arguments, best)[1:])
    assert (flags.epochs, flags.dice, flags.ema_decay) == (3, 2, 0.9)  # the command line takes precedence
    with pytest.raises(SystemExit):
        cli._expanded(["road.py", "--version"], best)
    assert capsys.readouterr().out.startswith("raw-unet 0.")


def test_an_installation_contains_every_module_and_the_best_settings():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options"]["packages"] == "find_namespace:"  # also finds folders without __init__.py
    patterns = config["options.packages.find"]["include"].split()
    for path in (*ROOT.glob("core/**/*.py"), *ROOT.glob("experiments/**/*.py")):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        assert any(fnmatch.fnmatch(package, pattern) for pattern in patterns)
    assert config["options.package_data"]["experiments"] == "best/*.cfg"
    assert len(list(ROOT.glob("experiments/best/*.cfg"))) == 5
