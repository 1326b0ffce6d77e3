"""Training ends with one sentence if its checkpoint, images or device do not fit."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import decoded, refused, road_flags

from core.data import resident
from core.runs import checkpoint, run_folder
from core.runtime import cli, device
from core.training import loop
from experiments import cityscape_road, oxford_pets_mobilenet


def train(flags):
    return loop.run(cityscape_road.experiment(flags), cityscape_road.define_flags, flags)


def test_a_deterministic_training_of_a_frozen_normalisation_on_a_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"])
    monkeypatch.setattr(device, "set_up", lambda flags: "a GPU")
    arguments = ["--deterministic", "--train_encoder", "--freeze_encoder_norm", f"--run_dir={tmp_path}/run"]
    script = oxford_pets_mobilenet
    flags = cli.parse(script.define_flags, arguments)
    with refused("--deterministic: on GPUs, TensorFlow has no deterministic gradient"):
        loop.run(script.experiment(flags), script.define_flags, flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [None, {"x": 1}, {"epoch": "1"}, {"epoch": -1}, {"history": [{}]}], ids=str
)
def test_a_checkpoint_whose_loop_state_is_damaged_is_refused(road_run, small_articles, tmp_path, changes):
    run = shutil.copytree(road_run, tmp_path / "run")
    arrays, state = checkpoint.load(run / "checkpoints/last.npz")
    checkpoint.save(run / "checkpoints", arrays, {} if changes is None else state | changes)
    arguments = [f"--flagfile={run / 'flags.cfg'}", f"--run_dir={run}"]
    with refused("another version of this project wrote the checkpoint"):
        train(cli.parse(cityscape_road.define_flags, arguments))


def test_continuing_from_the_checkpoint_of_another_network_is_refused(tmp_path):
    flags = road_flags(tmp_path / "run", f"--cache_dir={tmp_path / 'cache'}")
    with run_folder.claim(tmp_path / "run", "cityscape_road", cityscape_road.define_flags, flags):
        checkpoint.save(tmp_path / "run/checkpoints", {"conv1": np.zeros([2, 3], np.float32)}, {"epoch": 1})
    with refused("belongs to another network"):
        train(flags)


def test_training_on_pairs_without_road_is_refused(pairs, tmp_path):
    folders = [f"--data_dir={pairs}", f"--cache_dir={tmp_path / 'cache'}"]
    flags = road_flags(tmp_path / "run", *folders, "--road_rgb=9,9,9", "--road_tolerance=0")
    with refused("--road_rgb"):
        train(flags)


def test_unreadable_files_are_left_out_only_with_skip_bad_images(start, pairs):
    (pairs / "train/2.jpg").write_bytes(b"no image")
    arguments = "--epochs=1", "--max_bad_share=0.2"
    with refused("2.jpg"):
        start("refused", *arguments)
    with refused("--max_bad_share=0.1"):
        start("refused", "--epochs=1", "--max_bad_share=0.1", "--skip_bad_images")
    assert start("run", *arguments, "--skip_bad_images") == 0


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError, tf.errors.InternalError])
def test_images_that_exceed_the_memory_of_the_device_are_reported(tmp_path, monkeypatch, error):
    def variable(*_, **__):
        raise error(None, None, "Dst tensor is not initialized.")

    examples = decoded(tmp_path, np.zeros([2, 4, 4, 3], np.uint8), np.zeros([2, 4, 4], np.uint8))
    monkeypatch.setattr(tf, "Variable", variable)
    with refused("--data_on_device"):
        resident.make_training(examples, 1, seed=0)
