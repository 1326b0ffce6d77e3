"""A training that is killed with SIGKILL and continued is bit-identical to an uninterrupted one."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import small_training
from PIL import Image

from core.data import dubai_aerial
from core.data.synthetic import aerial_scenes
from core.runs import checkpoint
from core.training import signals

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["small_training"])  # TensorFlow is imported once

# One run is killed at all of these moments, one after another. A moment is (victim, call), see
# `small_training.run`; calls are counted in each process anew. All experiments share the training loop,
# so one experiment is enough here. tests/soak.py kills all five experiments at random moments.
DEATHS = [
    ("preparation", 5),  # of the cache, after the first block of two photos has been written
    ("step", 2),
    ("checkpoint", 2),  # while the file is written
    ("rename", 5),
]


@pytest.fixture
def tiles(tmp_path):
    """Write aerial photos and masks of 48x48 pixels, three in each of two tiles; return their folder."""
    palette = np.array(dubai_aerial.PALETTE, np.uint8)
    for tile in (1, 2):
        for part in (1, 2, 3):
            photo, class_ids = aerial_scenes.scene((tile, part), size=(48, 48))
            for kind, pixels in (("images", photo), ("masks", palette[class_ids])):
                path = tmp_path / f"tiles/Tile {tile}/{kind}/image_part_{part:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return tmp_path / "tiles"


def test_a_training_killed_at_four_moments_equals_an_uninterrupted_one(tiles, tmp_path):
    """`dubai_aerial` covers dropout, several patches per photo, and a metric that is computed per batch."""

    def begin(run, death=None):
        training = "dubai_aerial", tmp_path / run, tmp_path / f"{run} cache", tiles, death
        child = FORKS.Process(target=_train, args=training)
        child.start()
        return child

    unbroken = begin("unbroken")
    for death in DEATHS:
        child = begin("broken", death)
        child.join()
        assert child.exitcode == -signal.SIGKILL, death
        if death == ("step", 2):
            assert checkpoint.load(tmp_path / "broken/checkpoints/last.npz")[1]["step"] == 1
    last = begin("broken")
    for child in (unbroken, last):
        child.join()
        assert child.exitcode == 0
    assert small_training.contents(tmp_path / "unbroken") == small_training.contents(tmp_path / "broken")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_signal_ends_a_training_at_once():
    child = FORKS.Process(target=_signalled_twice)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGTERM


def _train(*args):
    raise SystemExit(small_training.run(*args))


def _signalled_twice():
    with signals.catch_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
