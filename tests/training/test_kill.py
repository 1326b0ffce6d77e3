"""A training that is killed with SIGKILL and continued is bit-identical to an uninterrupted one."""

import multiprocessing
import os
import signal

import small_training
from conftest import write_tiles

from core.runs import checkpoint
from core.training import signals

FORKS = multiprocessing.get_context("forkserver")
# The fork server imports TensorFlow once for all child processes. Before Python 3.12.8, and in 3.13.0, the
# server does not get pytest's sys.path and cannot import small_training, so each child imports this module.
FORKS.set_forkserver_preload(["core.training.loop", "experiments", "small_training"])

# One run is killed at all of these moments, one after another. A moment is (victim, call), see
# `small_training.run`; calls are counted in each process anew. All experiments share the training loop,
# so one experiment is enough here. tests/soak.py kills all five experiments at random moments.
DEATHS = [
    ("preparation", 5),  # of the cache, after the first block of two photos has been written
    ("step", 2),
    ("checkpoint", 2),  # while the file is written
    ("rename", 5),
]


def test_a_training_killed_at_four_moments_equals_an_uninterrupted_one(tmp_path):
    """`dubai_aerial` covers dropout, several patches per photo, and a metric that is computed per batch."""
    tiles = write_tiles(tmp_path / "tiles")

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


def test_a_handler_that_was_not_installed_from_python_is_left_alone(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    known = signal.getsignal
    monkeypatch.setattr(
        signal, "getsignal", lambda number: known(number) if number == signal.SIGINT else None
    )
    with signals.catch_signals():
        assert known(signal.SIGTERM) is before and known(signal.SIGINT) is not before
    assert known(signal.SIGTERM) is before
