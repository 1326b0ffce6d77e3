"""The command of each experiment on generated data: one epoch of a small network."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image
from small_training import SMALL

from core.runtime import cli
from core.training import loop
from experiments import __main__ as listing
from experiments import (
    cityscapes_labels,
    dubai_aerial,
    evaluate,
    export,
    oxford_pets,
    oxford_pets_mobilenet,
    predict,
)

COMMANDS = {
    oxford_pets: ["--size=32", "--limit=6", "--batch_size=4"],
    oxford_pets_mobilenet: ["--size=32", "--limit=6", "--batch_size=4", "--encoder_weights=none"],
    cityscapes_labels: ["--size=32", "--resize=40", "--limit=5", "--batch_size=4"],
    dubai_aerial: ["--patch_size=64", "--limit=3", "--batch_size=16", "--split_by=image"],
}


@pytest.mark.parametrize(
    "script, precision",
    [
        (oxford_pets, "bfloat16"),
        (oxford_pets_mobilenet, "float32"),
        (cityscapes_labels, "float32"),
        (dubai_aerial, "float32"),
        (dubai_aerial, "bfloat16"),
    ],
    ids=lambda value: getattr(value, "__name__", value).rpartition(".")[2],
)
def test_each_experiment_trains_on_generated_data_and_its_run_is_evaluated_predicted_and_exported(
    script, precision, shared_cache, tmp_path
):
    folders = [f"--run_dir={tmp_path / 'run'}", f"--cache_dir={shared_cache}"]
    arguments = [*COMMANDS[script], *folders, "--epochs=1", f"--precision={precision}"]
    flags = cli.parse(script.define_flags, arguments)
    experiment = script.experiment(flags)
    if precision == "bfloat16":  # small networks; float32 has the articles' widths, and uses the run
        experiment = dataclasses.replace(experiment, **SMALL[experiment.name][1])
    assert loop.run(experiment, script.define_flags, flags) == 0
    with open(tmp_path / "run" / "metrics.csv") as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["train_loss"]) < 10 and 0 <= float(row["val_accuracy"]) <= 1
    assert f"val_{experiment.best}" in row
    Image.open(tmp_path / "run" / "predictions" / "epoch_001.png").verify()
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.npz", "last.npz"}
    if precision == "float32":
        use(tmp_path / "run", row, tmp_path)


def use(run, row, tmp_path):
    """Evaluate, predict and export a run, and compare the results with each other."""
    arguments = [f"--run_dir={run}", f"--output_dir={tmp_path / 'out'}"]
    assert evaluate.run(cli.parse(evaluate.define_flags, arguments[:1])) == 0
    figures = json.loads((run / "evaluation/val_best/figures.json").read_text())
    assert figures["accuracy"] == float(row["val_accuracy"])
    pixels = np.random.RandomState(0).randint(0, 256, (64, 96, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    flags = cli.parse(predict.define_flags, [*arguments, "--size=native"])
    assert predict.run(flags, [str(tmp_path / "photo.png")]) == 0
    predicted = np.asarray(Image.open(tmp_path / "out" / "photo_labels.png"))
    arguments[1] = f"--output_dir={tmp_path / 'exported'}"
    assert export.run(cli.parse(export.define_flags, [*arguments, "--scaling=none"])) == 0
    loaded = tf.saved_model.load(str(tmp_path / "exported" / "saved_model"))
    outputs = loaded.signatures["serving_default"](tf.constant(pixels[None]))
    np.testing.assert_array_equal(outputs["class_ids"][0], predicted)
    assert outputs["probabilities"].shape[-1] == len(figures["classes"])


def test_the_list_describes_every_experiment_and_command():
    trained, others = listing.commands(ROOT / "experiments")
    assert trained.keys() >= {script.__name__.partition(".")[2] for script in COMMANDS}
    assert others.keys() >= {"benchmark", "evaluate", "export", "predict"}
    assert all(line.endswith(".") for line in (trained | others).values())
