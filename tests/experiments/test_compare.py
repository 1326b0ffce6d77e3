"""`experiments.compare` prints how runs differ, and whether the differences are larger than chance."""

import dataclasses
import functools
import json
import shutil
import types

import numpy as np
import pytest
from conftest import refused, with_other_code

from core import losses
from core.inference import comparison, per_image, uncertainty
from core.runs import checkpoint, run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article, compare

pytestmark = pytest.mark.usefixtures("small_articles")


@pytest.fixture(scope="module")
def other_run(road_run, tmp_path_factory):
    """Return the folder of a copy of `road_run` with another learning rate, another seed and larger losses.

    The validation loss of each epoch and the loss of each validation image are larger by 0.25.
    """
    # a new folder, because pytest-xdist may run this module in two parts, each with its own fixture
    other = shutil.copytree(road_run, tmp_path_factory.mktemp("other") / "run")
    text = (other / "flags.cfg").read_text()
    for old, new in (("--seed=0", "--seed=1"), ("--learning_rate=0.001", "--learning_rate=0.003")):
        assert old in text
        text = text.replace(old, new)
    (other / "flags.cfg").write_text(text)
    rows = run_folder.read_metrics(other)
    run_folder.write_metrics(other, [{**row, "val_loss": row["val_loss"] + 0.25} for row in rows])
    saved = per_image.load(other)
    per_image.save(other, dataclasses.replace(saved, loss=saved.loss + 0.25))
    return other


def compared(tmp_path, *arguments):
    flags = cli.parse(compare.define_flags, [f"--output_dir={tmp_path / 'out'}", *arguments[:-1]])
    return compare.run(flags, [str(folder) for folder in arguments[-1]])


def test_two_runs_are_compared_by_flags_code_metrics_curves_and_images(road_run, other_run, tmp_path, capsys):
    assert compared(tmp_path, [road_run, other_run]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"run 1: {road_run}, cityscape_road, 2 epochs\nrun 2: {other_run}")
    (rate,) = [line.split() for line in out.splitlines() if "--learning_rate" in line]
    assert rate == ["--learning_rate", "0.001", "0.003"]
    assert "--batch_size" not in out and "--run_dir" not in out
    assert "files whose code differs from run 1: none" in out
    final = [run_folder.read_metrics(folder)[-1] for folder in (road_run, other_run)]
    assert f"{final[1]['val_loss']:.4f} (" in out
    (line,) = [line for line in out.splitlines() if line.startswith("  loss ")]
    assert line.split() == ["loss", "+0.2500", "[+0.2500,", "+0.2500]", "differs"]
    assert "run 2 minus run 1, on 5 validation images from 5 files" in out
    assert (tmp_path / "out/curves.png").stat().st_size > 10_000


def test_the_saved_results_of_images_sum_to_the_validation_metrics(road_run):
    saved, row = per_image.load(road_run), run_folder.read_metrics(road_run)[-1]
    confusion = saved.confusion.sum(0)
    assert np.trace(confusion) / confusion.sum() == row["val_accuracy"] and len(saved.loss) == 5
    assert saved.loss.mean() == pytest.approx(row["val_loss"], rel=1e-6)


def changed_copy(run, folder, change):
    """Copy a run, apply `change` to the state in each of its checkpoints, and return the new folder."""
    shutil.copytree(run, folder)
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.npz"
        arrays, state = checkpoint.load(path)
        path.unlink()  # it may be a hard link to another checkpoint
        text = json.dumps({"state": {**state, **change}, "arrays": sorted(arrays)})
        np.savez(path, **{checkpoint.STATE: np.array(text)}, **arrays)
    return folder


def test_runs_with_other_images_or_code_of_earlier_epochs_form_groups_of_their_own(
    road_run, tmp_path, capsys
):
    other = changed_copy(road_run, tmp_path / "other_images", {"data": [1, 2]})
    edited = with_other_code(road_run, tmp_path / "edited")
    (earlier,), (item,) = (json.loads((run / "code.json").read_text()) for run in (edited, road_run))
    (edited / "code.json").write_text(json.dumps([earlier, {**item, "epoch": 1}]))
    assert compared(tmp_path, "--group", [road_run, other, edited]) == 0
    out = capsys.readouterr().out
    assert "00000001, 00000002" in out and "group 3: runs 3; n = 1" in out
    assert "run 3: its code changed during the training" in out


@pytest.fixture
def edited_run(road_run, tmp_path):
    """Return the folder of a copy of `road_run`, without the results per validation image.

    The recorded hash of core/ops.py differs from the hash of the current file.
    """
    run = with_other_code(road_run, tmp_path / "edited")
    (run / per_image.NAME).unlink()
    return run


def test_a_run_trained_with_other_code_is_not_evaluated_again(road_run, edited_run, tmp_path, capsys):
    assert compared(tmp_path, [road_run, edited_run]) == 0
    out = capsys.readouterr().out
    assert "run 2: core/ops.py" in out
    assert f"no bootstrap: {edited_run} has no val_images.npz" in out


def test_missing_results_of_images_are_computed_if_the_code_is_the_same(road_run, edited_run):
    shutil.copy(road_run / "code.json", edited_run)
    saved = per_image.load(road_run)
    stale = dataclasses.replace(saved, epoch=np.array(1), confusion=0 * saved.confusion)
    per_image.save(edited_run, stale)  # of an earlier epoch
    run = comparison.load(edited_run, "1", article)
    computed, saved = comparison.validation_results(run), per_image.load(road_run)
    np.testing.assert_array_equal(computed.confusion, saved.confusion)
    np.testing.assert_array_equal(computed.hashes, saved.hashes)


def test_a_checkpoint_from_within_an_epoch_is_not_compared(road_run, tmp_path, capsys):
    stopped = changed_copy(road_run, tmp_path / "stopped", {"step": 1})
    (stopped / per_image.NAME).unlink()
    assert compared(tmp_path, [road_run, stopped]) == 0
    assert "stopped: last.npz is not from the end of the last epoch" in capsys.readouterr().out


def test_different_losses_are_not_compared(road_run):
    a, b = [comparison.load(road_run, label, article) for label in "12"]
    assert "loss" in comparison.bootstrap(a, b, 100)[0]
    changed = [dataclasses.replace(b, code={**b.code, "core/losses.py": "edited"})]
    copied = types.FunctionType(losses.binary_cross_entropy.__code__, vars(losses))
    copied.__kwdefaults__ = {"class_weights": (1.0, 2.0)}  # only a default argument differs
    for loss in (functools.partial(b.experiment.loss, class_weights=(1.0, 2.0)), losses.dice, copied):
        changed.append(dataclasses.replace(b, experiment=dataclasses.replace(b.experiment, loss=loss)))
    for each in changed:
        differences, *_ = comparison.bootstrap(a, each, 100)
        assert "iou" in differences and "loss" not in differences
    a = dataclasses.replace(a, experiment=dataclasses.replace(a.experiment, measures={"jaccard": None}))
    b = dataclasses.replace(a, settings={**a.settings, "batch_size": 9})
    assert comparison.comparable("val_jaccard", a, a) and not comparison.comparable("val_jaccard", a, b)


def test_seeds_are_grouped_and_their_means_are_compared(road_run, other_run, tmp_path, capsys):
    folders = []
    for name, source, seed, change in [
        ("a0", road_run, 0, 0.0),
        ("a1", road_run, 1, 0.1),
        ("b0", other_run, 0, 1.0),
        ("b1", other_run, 1, 1.3),
        ("b2", other_run, 2, 1.0),
        ("a1_again", road_run, 1, 0.1),
    ]:
        shutil.copytree(source, tmp_path / name)
        flags = (tmp_path / name / "flags.cfg").read_text()
        old = "--seed=0" if source is road_run else "--seed=1"
        (tmp_path / name / "flags.cfg").write_text(flags.replace(old, f"--seed={seed}"))
        rows = run_folder.read_metrics(tmp_path / name)
        if source is other_run:
            rows = [{**row, "val_new": 1.0} for row in rows[:1]]
        run_folder.write_metrics(tmp_path / name, [{**row, "val_loss": change} for row in rows])
        folders.append(tmp_path / name)
    with refused("--seed=1"):
        compared(tmp_path, "--group", folders)
    compared(tmp_path, "--group", folders[:-1])
    out = capsys.readouterr().out
    assert "warning: the runs have different numbers of epochs" in out
    (line,) = [line for line in out.splitlines() if line.split()[:1] == ["val_new"] and "n =" in line]
    assert line.split()[1:] == ["-", "1.0000", "+-", "0.0000", "(n", "=", "3)"]
    assert "group 1: runs 1, 2; n = 2, seeds 0, 1" in out
    assert "group 2: runs 3, 4, 5; n = 3, seeds 0, 1, 2" in out
    (line,) = [line for line in out.splitlines() if line.split()[:1] == ["val_loss"] and "n =" in line]
    assert "0.0500 +- 0.0707 (n = 2)" in line and "1.1000 +- 0.1732 (n = 3)" in line
    assert "+1.0500" in line and "differs" in line
    for folder in folders[2:-1]:
        text = (folder / "flags.cfg").read_text()
        assert "--dice=0.0\n" in text
        (folder / "flags.cfg").write_text(text.replace("--dice=0.0\n", "--dice=1.0\n"))
    assert compared(tmp_path, "--group", folders[:-1]) == 0
    out = capsys.readouterr().out
    for name, expected in (("train_loss", True), ("val_loss", False)):
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name] and "n =" in line]
        assert ("not comparable" in line) == expected, line
    assert compare.verdict(*uncertainty.welch([0.1, float("nan")], [0.2, 0.3])[1:]) == "undefined"
    ends = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.2), (0.0, 0.0)
    assert [compare.verdict(*each) for each in ends] == 2 * ["differs"] + 2 * ["may be chance"]


def test_runs_that_cannot_be_compared_give_a_message(road_run, tmp_path):
    with pytest.raises(InputError, match="two or more runs"):
        compared(tmp_path, [road_run])
    shutil.copytree(road_run, tmp_path / "fresh")
    (tmp_path / "fresh/metrics.csv").unlink()
    with pytest.raises(InputError, match="fresh: no metrics.csv"):
        compared(tmp_path, [road_run, tmp_path / "fresh"])
    shutil.copytree(road_run, tmp_path / "damaged")
    (tmp_path / "damaged" / per_image.NAME).write_bytes(b"half")
    with pytest.raises(InputError, match="val_images.npz: damaged"):
        per_image.load(tmp_path / "damaged")
