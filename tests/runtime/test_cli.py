"""The command line end to end, in processes of its own, on generated data."""

import json

from conftest import python


def test_road_experiment_from_nothing_to_pictures(shared_cache, tmp_path):
    """Five epochs at a sixteenth of the area: generated scenes are learned, nothing else is needed."""
    run = tmp_path / "run"
    folders = [f"--run_dir={run}", f"--cache_dir={shared_cache}"]
    done = python("experiments.cityscape_road", "--epochs=5", "--size=32", *folders)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # none of TensorFlow's start-up noise either
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cityscape_road: 1,961,152 parameters")
    assert any("400 training and 100 validation images" in line for line in lines)
    assert str(run / "predictions") in lines[-1]
    summary = json.loads((run / "summary.json").read_text())
    # at full size and 25 epochs it passes 0.90; this short run has a bound of its own
    assert summary["best"]["val_iou"] > 0.75
    again = python("experiments.cityscape_road", f"--flagfile={run / 'flags.cfg'}")
    assert again.returncode == 0 and "finished" in again.stdout
    assert [line for line in lines if line.startswith("final")][0] in again.stdout


def test_bad_input_ends_in_one_sentence_and_exit_code_1(pairs, tmp_path):
    victim = pairs / "train" / "4.jpg"
    victim.write_bytes(victim.read_bytes()[:500])
    folders = [f"--run_dir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}"]
    done = python("experiments.cityscape_road", f"--data_dir={pairs}", *folders)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {victim}: ") and done.stderr.count("\n") == 1
    done = python("experiments.cityscape_road", "--epochs=0", "--data_dir=/no/such/folder")
    assert done.returncode == 1
    assert "--epochs=0" in done.stderr and "Traceback" not in done.stderr


def test_help_lists_the_flags_with_their_defaults():
    shown = python("experiments.cityscape_road", "--help").stdout
    assert "Road or not" in shown and "--[no]deterministic" in shown
    assert "default: '128,64,128'" in shown and "default: '25'" in shown
