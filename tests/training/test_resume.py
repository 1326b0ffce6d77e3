"""A training that is stopped, killed or extended is bit-identical to an uninterrupted one."""

import fcntl
import json
import os
import shutil
import signal

import pytest
from conftest import file_size_limit, train_road, write_pair, write_pairs
from small_networks import small
from small_training import contents

from core.inference import evaluate, per_image
from core.metrics import binary
from core.models import labels_unet
from core.runs import checkpoint, run_folder
from core.runtime.errors import InputError
from core.training import loop
from core.training.step import make_train_step


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Return the folder of an uninterrupted run with the settings and images of `start`."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert train_road(write_pairs(folder / "pairs", train=6, val=3), folder / "run") == 0
    return folder / "run"


@pytest.fixture
def finished(unbroken, tmp_path):
    """Copy the finished run `unbroken` to tmp_path / "run"; return its `contents`."""
    shutil.copytree(unbroken, tmp_path / "run")
    return contents(unbroken)


def labels():
    """Return fields of an experiment with batch normalisation, whose moving averages must be saved."""
    return small(labels_unet, classes=1)


BETTER = (
    "--schedule=cosine",
    "--warmup_steps=2",
    "--weight_decay=0.01",
    "--dice=0.5",
    "--ema_decay=0.9",
    "--augment=flip,dihedral,zoom,colour",
)


def test_a_run_stopped_by_a_signal_continues_at_the_same_step(start, tmp_path, monkeypatch):
    """SIGTERM arrives in step 3, the first of two in epoch 2.

    Both parts of the interrupted run keep the data on the device; the uninterrupted run does not.

    Dropout, and reading with tf.data from the middle of an epoch, are tested by test_kill.py.
    """
    flags = "--epochs=2", *BETTER
    start("unbroken", *flags, **labels())
    calls = []

    def make_interrupted_step(*args, **options):
        step = make_train_step(*args, **options)

        def interrupted(*batch):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*batch)

        return interrupted

    monkeypatch.setattr(loop, "make_train_step", make_interrupted_step)
    codes = [start("broken", *flags, "--data_on_device", **labels()) for _ in range(2)]
    assert codes == [143, 0]
    assert contents(tmp_path / "unbroken") == contents(tmp_path / "broken")


def test_a_run_stopped_during_validation_validates_again(start, unbroken, tmp_path, monkeypatch):
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
    assert contents(tmp_path / "broken") == contents(unbroken)


def test_a_run_killed_after_its_last_save_gets_its_best_checkpoint_and_picture(start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_at_call(patch, 1, checkpoint, "keep")  # the only save of the epoch has no previous checkpoint
        with pytest.raises(Killed):
            start("run", "--epochs=1")
    assert not (tmp_path / "run/checkpoints/best.npz").exists()
    assert start("run", "--epochs=1") == 0
    found = contents(tmp_path / "run")
    assert found["best"] == found["last"] and found["pictures"].keys() == {"epoch_001.png"}
    assert [row["epoch"] for row in found["table"]] == ["1"]


def test_metrics_csv_is_mended_before_the_next_epoch(start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_at_call(patch, 2, run_folder, "write_metrics")
        with pytest.raises(Killed):
            start("run")
        die_at_call(patch, 1, loop, "make_train_step")
        with pytest.raises(Killed):
            start("run")
    assert len(run_folder.read_metrics(tmp_path / "run")) == 1
    with monkeypatch.context() as patch:
        die_at_call(patch, 1, loop.progress, "Progress")
        with pytest.raises(Killed):
            start("run")
    assert len(run_folder.read_metrics(tmp_path / "run")) == 2


def test_a_signal_ends_the_evaluation_of_single_images(start, unbroken, tmp_path, monkeypatch):
    evaluate_images = per_image.evaluate

    def interrupted(evaluate_batches, examples, rows, epoch):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate_images(evaluate_batches, examples, rows, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(per_image, "evaluate", interrupted)
        assert start("run") == 143
    _, state = checkpoint.load(tmp_path / "run/checkpoints/last.npz")
    assert (state["epoch"], state["step"]) == (2, 2)
    assert start("run") == 0
    assert contents(tmp_path / "run") == contents(unbroken)


def test_a_run_killed_at_its_end_still_gets_the_results_of_each_image(start, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_at_call(patch, 1, per_image, "save")
        with pytest.raises(Killed):
            start("run")
    assert start("run") == 0
    assert (tmp_path / "run/val_images.npz").exists()
    assert contents(tmp_path / "run") == contents(unbroken)


def test_a_run_without_its_latest_checkpoints_is_not_begun_again(start, finished, tmp_path):
    for name in ("last", "previous"):
        (tmp_path / f"run/checkpoints/{name}.npz").unlink()
    kept = (tmp_path / "run/checkpoints/best.npz").read_bytes()
    with pytest.raises(InputError, match="last.npz and previous.npz are missing.* --init_from="):
        start("run")
    assert (tmp_path / "run/checkpoints/best.npz").read_bytes() == kept


def test_a_full_disk_damages_no_checkpoint(start, unbroken, tmp_path, monkeypatch):
    """A limit on the file size makes a write fail before its end, as a full disk does."""
    with monkeypatch.context() as patch:
        die_at_call(patch, 2, run_folder, "write_metrics")  # of epoch 2, whose checkpoint is saved
        with pytest.raises(Killed):
            start("run")
    assert len(run_folder.read_metrics(tmp_path / "run")) == 1
    with file_size_limit(2000), pytest.raises(InputError, match="last.npz: .*cannot be written"):
        start("run")
    assert checkpoint.load(tmp_path / "run/checkpoints/last.npz")[1]["epoch"] == 2
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert start("run") == 0
    assert contents(tmp_path / "run") == contents(unbroken)


class Killed(BaseException):
    """An exception that ends a training like SIGKILL, without ending the test process."""


def die_at_call(monkeypatch, number, module, name):
    """Make the function `name` of a module raise Killed in call `number`, counted from 1."""
    calls, function = [], getattr(module, name)

    def dying(*args, **options):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return function(*args, **options)

    monkeypatch.setattr(module, name, dying)


def test_a_finished_run_is_reported_and_not_changed(start, finished, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run/summary.json"
    summary = json.loads(path.read_text())
    path.unlink()  # as if the run had been killed after its last checkpoint
    monkeypatch.setattr(loop.device, "versions", lambda: {"tensorflow": "another version"})
    assert start("run") == 0
    assert json.loads(path.read_text()) == summary and "lowering" in summary
    shown = capsys.readouterr().out
    assert "finished (a larger --epochs continues it)" in shown and "val_iou" in shown
    assert contents(tmp_path / "run") == finished


def test_a_run_continued_with_more_epochs_equals_a_run_begun_with_them(start, unbroken, tmp_path):
    start("longer", "--epochs=1")
    assert start("longer", "--epochs=3", "--data_on_device") == 0
    assert contents(tmp_path / "longer") == contents(unbroken)
    assert "--epochs=3\n" in (tmp_path / "longer/flags.cfg").read_text()
    with pytest.raises(InputError, match="--epochs=2: .* has already begun epoch 3"):
        start("longer", "--epochs=2")
    assert "--epochs=3\n" in (tmp_path / "longer/flags.cfg").read_text()


def test_more_epochs_are_refused_if_the_learning_rate_falls(start, tmp_path, capsys):
    for _ in range(2):
        start("run", "--epochs=1", "--schedule=cosine")
    assert "this run is finished; use another --run_dir" in capsys.readouterr().out
    with pytest.raises(InputError, match="learning rate of each step depends .* --init_from="):
        start("run", "--epochs=2", "--schedule=cosine")


def test_a_run_continued_with_other_settings_is_refused(start, finished, tmp_path):
    again = rf"--flagfile={tmp_path}/run/flags.cfg --run_dir={tmp_path}/run\."
    with pytest.raises(InputError, match=rf"--batch_size .*--road_tolerance.*{again}"):
        start("run", "--batch_size=3", "--road_tolerance=20")
    assert contents(tmp_path / "run") == finished
    assert start("run", "--checkpoint_every=1") == 0  # this flag changes no result


def test_a_run_continues_after_its_data_moved(start, pairs, tmp_path, monkeypatch):
    stop_at_first_step(monkeypatch)
    assert start("run", "--epochs=1") == 143
    monkeypatch.undo()
    moved = pairs.rename(tmp_path / "moved")
    folders = [f"--data_dir={moved}", f"--cache_dir={tmp_path / 'other_cache'}"]
    assert start("run", "--epochs=1", *folders) == 0
    assert set(folders) <= set((tmp_path / "run/flags.cfg").read_text().splitlines())


def stop_at_first_step(monkeypatch):
    def interrupted(*batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    monkeypatch.setattr(loop, "make_train_step", lambda *args, **options: interrupted)


def test_a_run_does_not_continue_with_other_metrics(start, finished):
    def metrics(confusion):
        return {**binary(confusion), "new": 1.0}

    with pytest.raises(InputError, match="begun with other metrics .val_new differ.;"):
        start("run", "--epochs=4", metrics=metrics)


def test_fewer_epochs_than_a_run_has_begun_are_refused(start, finished, monkeypatch):
    stop_at_first_step(monkeypatch)
    assert start("run", "--epochs=4") == 143
    with pytest.raises(InputError, match="has already begun epoch 4; give at least --epochs=4"):
        start("run", "--epochs=3")


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


def test_a_finished_run_refuses_a_changed_image(start, finished, pairs):
    write_pair(pairs / "val" / "1.jpg", seed=9)
    with pytest.raises(InputError, match="but the images in .* differ;"):
        start("run", "--epochs=4")
    assert "--epochs=3\n" in (pairs.parent / "run/flags.cfg").read_text()


def test_only_one_process_can_train_in_a_run_folder(start, finished, tmp_path):
    with open(tmp_path / "run" / ".lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            start("run")
