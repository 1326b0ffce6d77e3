"""--init_from copies the weights of another run, except where the number of classes differs."""

import functools
import json
import shutil

import numpy as np
import pytest
from conftest import refused

from core.models import pets_unet, road_unet
from core.runs import checkpoint
from core.training import warm_start

SMALL = functools.partial(pets_unet.init_weights, filters=(4, 8))


def saved_run(folder, weights, **averages):
    """Write a run folder whose best checkpoint holds the weights, slots of Adam, and averages if given.

    Return the weights as arrays, a dict: name -> array.
    """
    arrays = {name: variable.numpy() for name, variable in weights.items()}
    slots = {"adam/step": np.int64(3), **{f"adam/mean/{name}": array for name, array in arrays.items()}}
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint.save(folder / "checkpoints", arrays | slots | averages, {"epoch": 7})
    checkpoint.keep(folder / "checkpoints", "best")
    return arrays


@pytest.mark.parametrize("classes", [3, 5])
def test_only_layers_with_another_number_of_classes_keep_initial_weights(tmp_path, capsys, classes):
    theirs = saved_run(tmp_path, SMALL(seed=0, classes=3))
    weights, untouched = (SMALL(seed=1, classes=classes) for _ in range(2))
    record = warm_start.load(weights, tmp_path, "best", logits=classes)
    fresh = record["initialised_afresh"]
    assert record["epoch"] == 7 and fresh == ([] if classes == 3 else ["logits/bias", "logits/kernel"])
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, untouched[name] if name in fresh else theirs[name])
    assert ("because the classes differ" in capsys.readouterr().out) == bool(fresh)


def test_averaged_weights_are_taken_if_the_run_has_them(tmp_path):
    weights = SMALL(seed=0, classes=3)
    averages = {f"average/{name}": variable.numpy() + 1 for name, variable in weights.items()}
    saved_run(tmp_path, weights, **averages)
    warm_start.load(weights, tmp_path, "last", logits=3)
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, averages[f"average/{name}"])


@pytest.mark.parametrize(
    "weights, named",
    [
        (SMALL(seed=0, classes=3, filters=(4, 16)), "down1/conv1/kernel"),
        (SMALL(seed=0, classes=3, filters=(4, 8, 16)), "down2/conv1/kernel"),
        (road_unet.init_weights(seed=0, filters=(4, 8)), "down0/conv1"),
    ],
    ids=["wider", "deeper", "another network"],
)
def test_another_network_is_refused_with_the_names_of_its_variables(tmp_path, weights, named):
    saved_run(tmp_path, SMALL(seed=0, classes=3))
    before = {name: variable.numpy() for name, variable in weights.items()}
    with refused(named):
        warm_start.load(weights, tmp_path, "best", logits=3)
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, before[name])


def test_a_run_without_checkpoint_is_refused(tmp_path):
    with refused(tmp_path / "checkpoints/best.npz"):
        warm_start.load(SMALL(seed=0, classes=3), tmp_path, "best", logits=3)


def test_a_warm_started_run_records_its_origin_and_no_longer_needs_it(start, tmp_path):
    start("origin", "--epochs=1")
    theirs, _ = checkpoint.load(tmp_path / "origin/checkpoints/last.npz")
    warm = f"--init_from={tmp_path / 'origin'}", "--init_checkpoint=last", "--learning_rate=1e-12", "--seed=5"
    start("run", *warm, "--epochs=1", load_weights=lambda weights: pytest.fail("called despite --init_from"))
    ours, _ = checkpoint.load(tmp_path / "run/checkpoints/last.npz")
    np.testing.assert_allclose(ours["logit"], theirs["logit"], rtol=1e-5)
    assert ours["adam/step"] == 2  # Adam starts anew
    shutil.rmtree(tmp_path / "origin")
    assert start("run", *warm, "--epochs=2") == 0
    record = json.loads((tmp_path / "run/summary.json").read_text())["initial_weights"]
    origin = {"run": str(tmp_path / "origin"), "checkpoint": "last", "epoch": 1}
    assert record == {**origin, "initialised_afresh": []}
