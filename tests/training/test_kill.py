"""Training processes killed with SIGKILL can be continued, and their results are bit-identical."""

import functools
import multiprocessing
import os
import resource
import signal

import pytest
import small_training

from core.data import cache
from core.runs import checkpoint
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import signals
from experiments import article

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["small_training"])  # TensorFlow is imported once

# name -> where it is killed: a function and the number of its call (see `small_training.run`). All
# experiments share one loop, so each tests some of the moments; tests/soak.py kills all five at random
# times.
DEATHS = {
    "cityscape_road": [("preparation", 7), ("checkpoint", 2)],
    "oxford_pets": [("step", 2), ("validation", 1)],
    "cityscapes_labels": [("rename", 5)],
    "dubai_aerial": [("step", 4), ("picture", 1)],
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_killed_training_equals_an_uninterrupted_one(name, shared_cache, tmp_path):
    begin = functools.partial(start, name, generated(name, shared_cache), tmp_path)
    unbroken = begin("unbroken")
    for death in DEATHS[name]:
        child = begin("broken", death)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    last = begin("broken")
    for child in (unbroken, last):
        child.join()
        assert child.exitcode == 0
    assert small_training.contents(tmp_path / "unbroken") == small_training.contents(tmp_path / "broken")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_full_disk_damages_no_checkpoint(shared_cache, tmp_path):
    """A limit on file sizes makes a write fail in its middle, like a full disk."""
    begin = functools.partial(start, "cityscape_road", generated("cityscape_road", shared_cache), tmp_path)
    unbroken = begin("unbroken")
    for death, limit, exit_code in ((("step", 4), None, -signal.SIGKILL), (None, 2000, 1), (None, None, 0)):
        child = begin("broken", death, limit)
        child.join()
        assert child.exitcode == exit_code
        assert checkpoint.load_latest(tmp_path / "broken" / "checkpoints")
        assert not list((tmp_path / "broken").rglob("*.partial"))
    unbroken.join()
    assert small_training.contents(tmp_path / "unbroken") == small_training.contents(tmp_path / "broken")


def test_a_second_signal_ends_a_training_at_once():
    child = FORKS.Process(target=_signalled_twice)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGTERM


def start(name, data, folder, run, death=None, limit=None):
    child = FORKS.Process(
        target=_train, args=(name, folder / run, folder / f"{run} cache", data, death, limit)
    )
    child.start()
    return child


def generated(name, cache_dir):
    """Return the folder of an experiment's generated data set."""
    script = article(name)
    flags = cli.parse(script.define_flags, small_training.SMALL[name][0])
    return cache.generated(script.experiment(flags).dataset, cache_dir)


def _train(*args):
    *args, limit = args
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        raise SystemExit(small_training.run(*args))
    except InputError as error:
        raise SystemExit(1 if "cannot be written" in str(error) else 2) from None


def _signalled_twice():
    with signals.catch_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
