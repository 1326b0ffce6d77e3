"""Trainings on the user's images, and the files that they keep in the run folder."""

import json
import shutil

import numpy as np
import pytest
from conftest import refused, write_tiles

import experiments
from core.data import cache, class_list, dubai_aerial
from core.runs import checkpoint
from core.runtime import cli, precision
from core.runtime.errors import InputError
from experiments import compare, draw_network, evaluate, export, own_images, predict, summary
from experiments import dubai_aerial as aerial

pytestmark = pytest.mark.usefixtures("small_articles")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Write the same photos and masks to the folders tiles/ and own/ of a new folder; return the new folder.

    tiles/ has the layout of the data set of `dubai_aerial`; own/ has the layout of `own_images`. The file
    classes.txt beside these folders holds the class colours.
    """
    folder = tmp_path_factory.mktemp("photos")
    for kind in ("images", "masks"):
        (folder / "own" / kind).mkdir(parents=True)
    for path in write_tiles(folder / "tiles").rglob("*.png"):
        tile, kind, name = path.parts[-3:]
        shutil.copy(path, folder / "own" / kind / f"{tile}_{name}")
    lines = [f"{name}: {r},{g},{b}\n" for name, (r, g, b) in dubai_aerial.COLOURS.items()]
    (folder / "classes.txt").write_text("".join(lines))
    return folder


def train(script, tmp_path, *arguments):
    """Train the experiment of the module `script` for one epoch in tmp_path/run."""
    common = ["--epochs=1", "--batch_size=4", "--patch_size=16", "--seed=3"]
    folders = [f"--run_dir={tmp_path}/run", f"--cache_dir={tmp_path}/cache"]
    assert experiments.train(script, *common, *folders, *arguments) == 0


def test_rearranged_aerial_photos_give_bit_identical_weights(photos, tmp_path):
    train(aerial, tmp_path / "a", f"--data_dir={photos}/tiles", "--split_by=image")
    own = [f"--data_dir={photos}/own", f"--classes={photos}/classes.txt"]
    train(own_images, tmp_path / "b", *own, "--network=dubai_unet", "--val_share=0.1", "--clip_norm=0")
    arrays = [checkpoint.load(tmp_path / run / "run/checkpoints/last.npz")[0] for run in "ab"]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], err_msg=name)


def test_a_run_keeps_its_classes_and_class_weights_without_the_original_files(photos, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text((photos / "classes.txt").read_text().replace("unlabeled: 155,155,155\n", ""))
    own = [f"--data_dir={photos}/own", f"--classes={classes}"]
    train(own_images, tmp_path, *own, "--ignore=155,155,155", "--class_weights=balanced")
    classes.unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    run = experiments.load(tmp_path / "moved", data=True)
    assert run.experiment.classes == dubai_aerial.CLASSES[:5] and run.experiment.ignore
    weights = class_list.read_weights(tmp_path / "moved/class_weights.txt", run.experiment.classes)
    assert len(set(weights)) > 2 and run.experiment.loss.keywords == {"class_weights": weights}
    trained_on = cache.load_split(run.experiment.dataset, run.flags, "train")
    pixels = np.bincount(trained_on.masks[trained_on.rows].ravel(), minlength=256)[: len(weights)]
    np.testing.assert_allclose((weights * pixels)[pixels > 0], pixels.sum() / np.sum(pixels > 0), rtol=1e-5)
    commands_use_the_run(tmp_path / "moved", photos / "own/images/Tile 1_image_part_001.png", tmp_path)


def commands_use_the_run(run, photo, folder):
    """Call evaluate, predict and export with the run of own_images in the folder `run`.

    photo: an image file for predict. folder: the folder in which the results are written.
    """
    assert evaluate.run(cli.parse(evaluate.define_flags, [f"--run_dir={run}"])) == 0
    figures = json.loads((run / "evaluation/val_best/figures.json").read_text())
    assert list(figures["classes"]) == list(dubai_aerial.CLASSES[:5])
    arguments = [f"--run_dir={run}", f"--output_dir={folder / 'predicted'}"]
    assert predict.run(cli.parse(predict.define_flags, arguments), [str(photo)]) == 0
    (record,) = map(json.loads, (folder / "predicted/shares.jsonl").open())
    assert list(record["shares"]) == list(dubai_aerial.CLASSES[:5])
    arguments = [f"--run_dir={run}", f"--output_dir={folder / 'exported'}", "--tflite"]
    assert export.run(cli.parse(export.define_flags, arguments)) == 0
    exported = {path.name for path in (folder / "exported").iterdir()}
    assert exported == {"model.json", "model.tflite", "saved_model"}


def test_a_run_does_not_continue_after_an_edit_of_its_class_files(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "step_seconds", lambda: {"float32": 0.1, "bfloat16": 0.2})
    files = {"classes": (photos / "classes.txt").read_text()}
    files["class_weights"] = "".join(f"{line.split(':')[0]}: 1\n" for line in files["classes"].splitlines())
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text)
    own = [f"--data_dir={photos}/own", *(f"--{name}={tmp_path}/{name}.txt" for name in files)]
    for _ in range(2):
        train(own_images, tmp_path, *own, "--precision=auto")
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text.replace(": 1\n", ": 2\n").replace("110,193", "0,0"))
        with refused(f"{tmp_path}/{name}.txt: differs from {tmp_path}/run/{name}.txt"):
            train(own_images, tmp_path, *own, "--precision=auto")
        (tmp_path / f"{name}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in files:
        (tmp_path / f"{name}.txt").unlink()  # the run folder has a copy
    own[1:] = [f"--{name}={name}.txt" for name in files]
    train(own_images, tmp_path, *own, "--precision=auto")


def test_found_classes_are_kept_in_the_run_folder_and_commands_leave_them_unchanged(photos, tmp_path, capsys):
    train(own_images, tmp_path, f"--data_dir={photos}/own", "--class_weights=balanced")
    run = tmp_path / "run"
    found = class_list.read(run / "classes.txt")
    assert set(found.palette) <= set(dubai_aerial.PALETTE)
    assert f"{len(found.names)} classes in the masks" in capsys.readouterr().out
    text = (run / "classes.txt").read_text()
    (run / "classes.txt").write_text(text.replace("colour #6ec1e4:", "road:"))
    flags = cli.parse(own_images.define_flags, [f"--run_dir={run}"])
    assert "road" in own_images.experiment(flags).classes  # a run that has a checkpoint reads the file
    (run / "classes.txt").write_text(text)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert summary.run(cli.parse(summary.define_flags, [f"--run_dir={run}"])) == 0
    flags = cli.parse(compare.define_flags, [f"--output_dir={tmp_path}/out"])
    assert compare.run(flags, [str(run), str(run)]) == 0
    assert "validation images from 2 files" in capsys.readouterr().out  # many patches, but two photos
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("command, size", [(summary, "256x256"), (draw_network, "128x128")])
def test_the_default_network_is_described_without_a_run_folder(
    shared_cache, tmp_path, monkeypatch, capsys, command, size
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/own_images").mkdir(parents=True)
    (tmp_path / "runs/own_images/classes.txt").write_text("not a list of classes")
    (tmp_path / "cache").symlink_to(shared_cache)
    assert command.run(cli.parse(command.define_flags, ["--experiment=own_images"])) == 0
    printed = capsys.readouterr().out
    assert size in (printed if command is summary else (tmp_path / "network.svg").read_text())
    assert (tmp_path / "runs/own_images/classes.txt").read_text() == "not a list of classes"


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--size=20"], "--size=20: must be a multiple of 16"),
        (["--size=48", "--network=mobilenet_unet"], "--size=48: must be a multiple of 32"),
        (["--ignore=255"], "--ignore=255: give a colour"),
        (["--ignore=red"], "--ignore=red: "),
        (["--class_weights=gone.txt"], "gone.txt: not a readable text file"),
        (["--classes=gone.txt"], "gone.txt: not a readable text file"),
        (["--classes=classes.txt", "--ignore=155,155,155"], "--ignore=155,155,155: classes.txt gives this"),
    ],
)
def test_flags_that_do_not_fit_are_refused(photos, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(photos)
    common = [f"--data_dir={photos}/own", f"--run_dir={tmp_path}/run", f"--cache_dir={tmp_path}/cache"]
    flags = cli.parse(own_images.define_flags, [*common, *arguments])
    with refused(named):
        own_images.experiment(flags)
    with refused(named):
        own_images.train(flags)
    assert not (tmp_path / "run").exists()


def test_size_and_patch_size_together_are_refused():
    with pytest.raises(InputError, match="--size or --patch_size"):
        cli.parse(own_images.define_flags, ["--size=32", "--patch_size=32"])


@pytest.mark.parametrize("network, classes", [("road_unet", 2), *((name, 3) for name in own_images.NETWORKS)])
def test_every_network_has_a_loss_that_fits_its_logits(photos, tmp_path, network, classes):
    listed = tmp_path / "classes.txt"
    listed.write_text("".join(f"{name}: {index}\n" for index, name in enumerate("abc"[:classes])))
    arguments = [f"--classes={listed}", f"--network={network}", "--size=32", f"--run_dir={tmp_path}/run"]
    made = own_images.experiment(cli.parse(own_images.define_flags, arguments))
    weights = made.init_weights(seed=0)
    logits = made.forward(weights, np.zeros((1, 32, 32, 3), np.float32))
    assert logits.shape[-1] == (1 if (network, classes) == ("road_unet", 2) else classes)
    assert made.loss(logits, np.ones((1, 32, 32), np.uint8)).shape == (1,)
