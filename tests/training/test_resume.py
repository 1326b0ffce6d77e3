"""A training that is stopped, killed or extended is bit-identical to an uninterrupted one."""

import fcntl
import os
import shutil
import signal

import numpy as np
import pytest
from conftest import write_pair
from small_networks import small
from small_training import contents

from core.data import augment
from core.inference import evaluate
from core.models import pets_unet
from core.runs import checkpoint, run_folder
from core.runtime.errors import InputError
from core.training import loop
from core.training.step import make_train_step


def test_runs_with_the_same_seed_are_equal(start, tmp_path):
    for name, *arguments in (("a",), ("b",), ("c", "--seed=1")):
        start(name, *arguments)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["last"] != contents(tmp_path / "c")["last"]


def pets(**changes):
    """Return fields of an experiment with dropout and flips, which the road experiment does not have."""

    return {**small(pets_unet, classes=1), "augment": (augment.flip,)}


BETTER = (
    "--schedule=cosine",
    "--warmup_steps=2",
    "--weight_decay=0.01",
    "--dice=0.5",
    "--ema_decay=0.9",
    "--augment=flip,dihedral,zoom,colour",
)


@pytest.mark.parametrize(
    "network, flags, own",
    [(pets, (), ()), (dict, BETTER, ("--data_on_device",))],
    ids=["dropout and flips", "better settings, resumed with the data on the device"],
)
def test_a_run_stopped_by_a_signal_continues_at_the_same_step(
    start, tmp_path, network, flags, own, monkeypatch
):
    start("unbroken", *flags, **network())
    calls = []

    def make_interrupted_step(*args, **options):
        step = make_train_step(*args, **options)

        def interrupted(*batch):
            calls.append(1)
            if len(calls) in (1, 4):  # in the first step, and in the middle of epoch 2
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*batch)

        return interrupted

    monkeypatch.setattr(loop, "make_train_step", make_interrupted_step)
    codes = [start("broken", *flags, *own, **network()) for _ in range(3)]
    assert codes == [143, 143, 0]
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "broken")


def test_a_run_stopped_during_validation_validates_again(start, tmp_path, monkeypatch):
    start("unbroken")
    make_evaluate = evaluate.make_evaluate
    calls = []

    def make_interrupted(*args):
        measured = make_evaluate(*args)

        def interrupted(val_batches):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return measured(val_batches)

        return interrupted

    monkeypatch.setattr(loop, "make_evaluate", make_interrupted)
    assert [start("broken"), start("broken")] == [130, 0]
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "broken")


@pytest.mark.parametrize(
    "epochs, victims",
    [(3, ("savez", "fsync", "write_metrics", "keep")), (1, ("keep",))],
    ids=["", "finished"],
)
def test_a_run_killed_during_a_save_continues_from_a_whole_checkpoint(
    start, tmp_path, monkeypatch, epochs, victims
):
    """The process dies at the third call of the victim; training saves after each step.

    savez: while the archive is written; fsync: before the archive is renamed; write_metrics: after
    the save; keep: before the best checkpoint is kept.
    """
    start("unbroken", f"--epochs={epochs}")
    monkeypatch.setattr(loop, "LOSS_SYNC_SECONDS", -1)
    saving = "--checkpoint_every=0", f"--epochs={epochs}"
    for victim in victims:
        with monkeypatch.context() as patch:
            die_at_third_call(patch, {"savez": np, "fsync": os, "write_metrics": run_folder}, victim)
            with pytest.raises(Killed):
                start(victim, *saving)
        assert start(victim, *saving) == 0
        assert contents(tmp_path / "unbroken") == contents(tmp_path / victim), victim
        best = [checkpoint.load(tmp_path / name / "checkpoints/best.npz")[1] for name in ("unbroken", victim)]
        assert best[0]["epoch"] == best[1]["epoch"], victim


class Killed(BaseException):
    """An exception that ends a training like SIGKILL, without ending the test process."""


def die_at_third_call(monkeypatch, modules, victim):
    """Make the third call of a function, `checkpoint.keep` or one of the given modules, raise Killed."""
    module, calls = modules.get(victim, checkpoint), []
    whole = getattr(module, victim)

    def dying(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return whole(*args, **options)

    monkeypatch.setattr(module, victim, dying)


def test_a_finished_run_is_reported_and_not_changed(start, tmp_path, capsys):
    start("run")
    before = contents(tmp_path / "run")
    capsys.readouterr()
    assert start("run") == 0
    shown = capsys.readouterr().out
    assert "finished" in shown and "val_iou" in shown
    assert contents(tmp_path / "run") == before


def test_a_run_continued_with_more_epochs_equals_a_run_begun_with_them(start, tmp_path):
    start("unbroken", "--epochs=3")
    start("longer", "--epochs=1")
    assert start("longer", "--epochs=3", "--data_on_device") == 0
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "longer")
    assert "--epochs=3\n" in (tmp_path / "longer/flags.cfg").read_text()
    with pytest.raises(InputError, match="--epochs=2: .* is already trained for 3 epochs"):
        start("longer", "--epochs=2")
    assert "--epochs=3\n" in (tmp_path / "longer/flags.cfg").read_text()


def test_more_epochs_are_refused_if_the_learning_rate_falls(start, tmp_path):
    start("run", "--epochs=1", "--schedule=cosine")
    with pytest.raises(InputError, match="learning rate of each step depends .* --init_from="):
        start("run", "--epochs=2", "--schedule=cosine")


def test_a_run_continued_with_other_settings_is_refused(start, tmp_path):
    start("run")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=r"--batch_size .*--road_tolerance"):
        start("run", "--batch_size=3", "--road_tolerance=20")
    assert contents(tmp_path / "run") == before
    assert start("run", "--checkpoint_every=1") == 0  # changes no result


def test_a_run_continues_after_its_data_moved(start, pairs, tmp_path, monkeypatch):
    stop_at_first_step(monkeypatch)
    assert start("run") == 143
    monkeypatch.undo()
    moved = pairs.rename(tmp_path / "moved")
    assert start("run", f"--data_dir={moved}") == 0


def stop_at_first_step(monkeypatch):
    def interrupted(*batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    monkeypatch.setattr(loop, "make_train_step", lambda *args, **options: interrupted)


def test_another_set_of_files_is_refused_before_decoding(start, pairs, monkeypatch, capsys):
    stop_at_first_step(monkeypatch)
    assert start("run") == 143
    other = shutil.copytree(pairs, pairs.with_name("other"))
    write_pair(other / "train" / "7.jpg", seed=9)
    capsys.readouterr()
    message = "trained on 6 training and 3 validation files in .*/pairs, but .*/other has other files"
    with pytest.raises(InputError, match=message):
        start("run", f"--data_dir={other}")
    assert "decoding" not in capsys.readouterr().out


def test_a_finished_run_refuses_a_changed_image(start, pairs):
    start("run", "--epochs=1")
    write_pair(pairs / "val" / "1.jpg", seed=9)
    with pytest.raises(InputError, match="but the images in .* differ;"):
        start("run", "--epochs=1")


def test_only_one_process_can_train_in_a_run_folder(start, tmp_path):
    start("run")
    with open(tmp_path / "run" / ".lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            start("run")
