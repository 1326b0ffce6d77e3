"""Trainings on the user's images, and the files that they keep in the run folder."""

import numpy as np
import pytest
from conftest import refused
from PIL import Image

import experiments
from core.data import class_list, dubai_aerial
from core.data.synthetic import aerial_scenes
from core.inference import restore
from core.runs import checkpoint
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article, compare, draw_network, own_images, summary
from experiments import dubai_aerial as aerial

pytestmark = pytest.mark.usefixtures("small_articles")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Write the same photos and masks to two folders, tiles/ and own/; return the folder that contains these.

    tiles/ has the layout of the data set of `dubai_aerial`; own/ has the layout of `own_images`. The file
    classes.txt beside these folders holds the class colours.
    """
    folder = tmp_path_factory.mktemp("photos")
    palette = np.array(dubai_aerial.PALETTE, np.uint8)
    for tile in (1, 2):
        for part in (1, 2, 3):
            photo, ids = aerial_scenes.scene((tile, part), size=(48, 48))
            for kind, pixels in (("images", photo), ("masks", palette[ids])):
                for path in (
                    folder / f"tiles/Tile {tile}/{kind}/part_{part}.png",
                    folder / f"own/{kind}/Tile {tile}_part_{part}.png",
                ):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
    lines = [f"{name}: {r},{g},{b}\n" for name, (r, g, b) in dubai_aerial.COLOURS.items()]
    (folder / "classes.txt").write_text("".join(lines))
    return folder


def train(script, tmp_path, *arguments):
    """Train the experiment of the module `script` for one epoch in tmp_path/run; return the parsed flags."""
    common = ["--epochs=1", "--batch_size=4", "--patch_size=16", "--seed=3"]
    folders = [f"--run_dir={tmp_path}/run", f"--cache_dir={tmp_path}/cache"]
    arguments = [*common, *folders, *arguments]
    assert experiments.train(script, *arguments) == 0
    return cli.parse(script.define_flags, arguments)


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
    values = cli.parse(restore.define_flags, [f"--run_dir={tmp_path}/moved"])
    run = restore.restore(values, article)
    assert run.experiment.classes == dubai_aerial.CLASSES[:5] and run.experiment.ignore
    weights = class_list.read_weights(tmp_path / "moved/class_weights.txt", run.experiment.classes)
    assert len(set(weights)) > 2 and run.experiment.loss.keywords == {"class_weights": weights}


def test_a_run_does_not_continue_after_an_edit_of_its_class_files(photos, tmp_path):
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


def test_found_classes_are_written_to_the_run_folder_and_read_from_it(photos, tmp_path, capsys):
    flags = train(own_images, tmp_path, f"--data_dir={photos}/own")
    found = class_list.read(tmp_path / "run/classes.txt")
    assert set(found.palette) <= set(dubai_aerial.PALETTE)
    assert f"{len(found.names)} classes in the masks" in capsys.readouterr().out
    text = (tmp_path / "run/classes.txt").read_text()
    (tmp_path / "run/classes.txt").write_text(text.replace("colour #6ec1e4:", "road:"))
    assert "road" in own_images.experiment(flags).classes  # a run that has a checkpoint reads the file


def test_commands_that_read_a_run_without_checkpoints_leave_its_classes_unchanged(photos, tmp_path):
    train(own_images, tmp_path, f"--data_dir={photos}/own", "--class_weights=balanced")
    run = tmp_path / "run"
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert summary.run(cli.parse(summary.define_flags, [f"--run_dir={run}"])) == 0
    flags = cli.parse(compare.define_flags, [f"--output_dir={tmp_path}/out"])
    assert compare.run(flags, [str(run), str(run)]) == 0
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("command, size", [(summary, "256x256"), (draw_network, "64x64")])
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
