"""Each experiment on generated data with a small network: one epoch, and the commands that use the run.

The trainings use the settings in experiments/best, with the losses and networks of the articles.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image

import experiments
from core.inference import arrays
from core.lowering import winograd
from core.runs import run_folder
from core.runtime import cli
from experiments import __main__ as listing
from experiments import (
    cityscape_road,
    cityscapes_labels,
    dubai_aerial,
    evaluate,
    export,
    oxford_pets,
    oxford_pets_mobilenet,
    predict,
)

COMMANDS = {  # module of an experiment -> flags that replace values in experiments/best
    cityscape_road: ["--size=32", "--limit=6", "--precision=bfloat16"],
    oxford_pets: ["--size=32", "--limit=6", "--batch_size=4"],
    oxford_pets_mobilenet: ["--size=32", "--limit=6", "--batch_size=4", "--encoder_weights=none"],
    cityscapes_labels: ["--size=32", "--resize=40", "--limit=5", "--batch_size=4"],
    dubai_aerial: ["--patch_size=64", "--limit=3", "--batch_size=16", "--split_by=image"],
}


@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.__name__.rpartition(".")[2])
def test_each_experiment_trains_on_generated_data_and_its_run_is_evaluated_predicted_and_exported(
    script, small_articles, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(winograd, "MIN_CHANNEL_PRODUCT", 64)  # used from 8 channels on
    best = f"--flagfile={ROOT}/experiments/best/{script.__name__.rpartition('.')[2]}.cfg"
    article_flags, better = cli.parse(script.define_flags), cli.parse(script.define_flags, [best])
    changed = {name for name in better if better[name].value != article_flags[name].value}
    own = {"epochs"} if script is oxford_pets else set()  # the better settings of oxford_pets train longer
    assert changed and not (changed - own) & {"epochs", "size", "patch_size", "data_dir", "seed", "split_by"}
    folders = [f"--run_dir={tmp_path / 'run'}", f"--cache_dir={shared_cache}"]
    assert experiments.train(script, best, *COMMANDS[script], *folders, "--epochs=1") == 0
    (row,) = run_folder.read_metrics(tmp_path / "run")
    assert 0 < row["train_loss"] < 10 and 0 <= row["val_accuracy"] <= 1
    assert f"val_{json.loads((tmp_path / 'run/summary.json').read_text())['best_metric']}" in row
    Image.open(tmp_path / "run" / "predictions" / "epoch_001.png").verify()
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.npz", "last.npz"}
    if script is cityscape_road:  # test_evaluate.py and test_export.py use a run of this experiment
        return
    if script is oxford_pets_mobilenet:
        assert better.train_encoder  # as README says
    else:  # the network of oxford_pets_mobilenet takes long to trace
        assert evaluate.run(cli.parse(evaluate.define_flags, [f"--run_dir={tmp_path / 'run'}"])) == 0
        figures = json.loads((tmp_path / "run/evaluation/val_best/figures.json").read_text())
        assert figures["accuracy"] == float(row["val_accuracy"])
    predictions_equal_the_export(
        tmp_path / "run", tmp_path, [] if script is dubai_aerial else ["--size=native"]
    )


def predictions_equal_the_export(run, tmp_path, size):
    """Check that `predict` and the exported model of a run give the same class ids for an image of noise.

    Because of rounding, up to 0.1 % of the pixels may differ. size: a list with the flag --size, or an empty
    list for a network that was trained on patches. With an empty list, the class ids of `arrays.predict` must
    also equal the class ids of `predict`.
    """
    arguments = [f"--run_dir={run}", f"--output_dir={tmp_path / 'out'}"]
    pixels = np.random.RandomState(0).randint(0, 256, (64, 96, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    flags = cli.parse(predict.define_flags, [*arguments, *size])
    assert predict.run(flags, [str(tmp_path / "photo.png")]) == 0
    predicted = np.asarray(Image.open(tmp_path / "out" / "photo_labels.png"))
    arguments[1] = f"--output_dir={tmp_path / 'exported'}"
    assert export.run(cli.parse(export.define_flags, [*arguments, "--scaling=none"])) == 0
    loaded = tf.saved_model.load(str(tmp_path / "exported" / "saved_model"))
    outputs = loaded.signatures["serving_default"](tf.constant(pixels[None]))
    assert (outputs["class_ids"][0].numpy() == predicted).mean() > 0.999
    if not size:
        np.testing.assert_array_equal(arrays.predict(experiments.load(run), pixels[None])[0], predicted)
    card = json.loads((tmp_path / "exported/model.json").read_text())
    assert outputs["probabilities"].shape[-1] == len(card["classes"]) > 2


def test_the_list_describes_every_experiment_and_command():
    trained, others = listing.commands(ROOT / "experiments")
    # test_own_images_training.py tests own_images; add another new experiment to COMMANDS
    assert trained.keys() - {"own_images"} == {script.__name__.partition(".")[2] for script in COMMANDS}
    assert others.keys() >= {"benchmark", "evaluate", "export", "predict"}
    assert all(line.endswith(".") for line in (trained | others).values())
