"""Training processes killed with SIGKILL: what they leave goes on as if nothing had happened."""

import multiprocessing
import random
import signal

import pytest
import small_training

from core import settings
from core.data import cache
from experiments import article

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["small_training"])  # TensorFlow is imported once

# Where each experiment is killed: in which call of what, or after some random seconds.
# It is one loop, so that the moments are shared out among the five.
DEATHS = {
    "cityscape_road": [("preparation", 7), ("checkpoint", 2), ("picture", 2)],
    "oxford_pets": [("step", 2), None],
    "oxford_pets_mobilenet": [("validation", 1)],
    "cityscapes_labels": [("rename", 5), ("validation", 2), None],
    "dubai_aerial": [("preparation", 9), ("step", 4), ("picture", 1)],
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_killed_training_ends_as_if_it_had_never_been(name, shared_cache, tmp_path):
    data = cache.generated(article(name).experiment(article_flags(name)).dataset, shared_cache)

    def begin(run, death=None):
        child = FORKS.Process(
            target=_exit_with, args=(name, tmp_path / run, tmp_path / f"{run} cache", data, death)
        )
        child.start()
        return child

    unbroken = begin("unbroken")
    for death in DEATHS[name]:
        child = begin("broken", death)
        if not death:
            child.join(random.uniform(0.5, 5))
            child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL or not death
    last = begin("broken")
    for child in (unbroken, last):
        child.join()
        assert child.exitcode == 0
    assert small_training.contents(tmp_path / "unbroken") == small_training.contents(tmp_path / "broken")
    assert not list(tmp_path.rglob("*.partial"))


def article_flags(name):
    return settings.parse(article(name).define_flags, small_training.SMALL[name][0])


def _exit_with(*args):
    raise SystemExit(small_training.run(*args))
