"""Each experiment's command on generated data: one epoch, small through its flags."""

import csv

import pytest
from PIL import Image

from core import settings, train
from experiments import cityscapes_labels, dubai_aerial, oxford_pets, oxford_pets_mobilenet

COMMANDS = {
    oxford_pets: ["--size=32", "--limit=6", "--batch_size=4"],
    oxford_pets_mobilenet: ["--size=32", "--limit=6", "--batch_size=4", "--encoder_weights=none"],
    cityscapes_labels: ["--size=32", "--resize=40", "--limit=5", "--batch_size=4"],
    dubai_aerial: ["--patch_size=64", "--limit=3", "--batch_size=16", "--split_by=image"],
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.__name__.partition(".")[2])
def test_one_epoch_without_any_data(script, precision, shared_cache, tmp_path):
    folders = [f"--run_dir={tmp_path / 'run'}", f"--cache_dir={shared_cache}"]
    arguments = [*COMMANDS[script], *folders, "--epochs=1", f"--precision={precision}"]
    flags = settings.parse(script.define_flags, arguments)
    experiment = script.experiment(flags)
    assert train.run(experiment, script.define_flags, flags) == 0
    with open(tmp_path / "run" / "metrics.csv") as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["train_loss"]) < 10 and 0 <= float(row["val_accuracy"]) <= 1
    assert f"val_{experiment.best}" in row
    Image.open(tmp_path / "run" / "predictions" / "epoch_001.png").verify()
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.npz", "last.npz"}
