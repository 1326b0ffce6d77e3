"""Any image in, masks of its own size out; what cannot be read is skipped and named."""

import json
import os
import re
import shutil
import signal
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import python
from PIL import Image

import experiments
from core.data import images
from core.inference import photos, predict, restore
from core.models import road_unet
from core.runs import checkpoint
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article
from experiments import predict as verb

PALETTE = np.array([(0, 0, 0), (128, 64, 128)])


@pytest.fixture(scope="module")
def run(road_run):
    """The trained run, with an output layer that makes both classes of noise."""
    run = restored(road_run)
    kernel = np.random.RandomState(0).normal(size=run.weights["logit"].shape)
    run.weights["logit"].assign(kernel)
    return run


def restored(folder, name="best", **options):
    return restore.restore(SimpleNamespace(run_dir=str(folder), checkpoint=name), article, **options)


def segment(run, paths, output_dir, *, resize=None, tile=1024, flip=False):
    """The exit code and, by name, the class ids written."""
    code = predict.run(
        run.experiment, run.weights, run.dtype, paths, output_dir, resize=resize, tile=tile, flip=flip
    )
    labels = {
        str(path.relative_to(output_dir)).removesuffix("_labels.png"): np.asarray(Image.open(path))
        for path in output_dir.rglob("*_labels.png")
    }
    return code, labels


def photo(path, width, height, **options):
    pixels = np.random.RandomState(width).randint(0, 256, (height, width, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def expected(run, path):
    """Class ids of a whole image whose sides are multiples of 16, by the network alone."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)[None]
    return (road_unet.forward(run.weights, pixels).numpy()[0, ..., 0] > 0).astype(np.uint8)


@pytest.mark.parametrize("resize", [None, 32])
def test_each_image_gets_three_pictures_of_its_own_size_and_a_record(run, tmp_path, resize):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        photo(tmp_path / "odd.png", 61, 37),
        photo(tmp_path / "turned.jpg", 48, 32, exif=exif),
        photo(tmp_path / "tiny.png", 1, 1),
        photo(tmp_path / "even.png", 64, 48),
    ]
    Image.open(paths[0]).convert("L").save(tmp_path / "grey.png")
    code, labels = segment(run, [*paths, tmp_path / "grey.png"], tmp_path / "out", resize=resize)
    assert code == 0
    shapes = {name: found.shape for name, found in labels.items()}
    assert shapes == {"odd": (37, 61), "turned": (48, 32), "tiny": (1, 1), "even": (48, 64), "grey": (37, 61)}
    if not resize:
        np.testing.assert_array_equal(labels["even"], expected(run, paths[3]))
        assert 0.01 < labels["even"].mean() < 0.99
    records = [json.loads(line) for line in (tmp_path / "out/shares.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == ["odd", "turned", "tiny", "even", "grey"]
    for record in records:
        found = labels[record["name"]]
        assert record["shares"] == {"background": (found == 0).mean(), "road": (found == 1).mean()}
        colours = Image.open(tmp_path / "out" / f"{record['name']}_colours.png").convert("RGB")
        np.testing.assert_array_equal(colours, PALETTE[found])
        assert Image.open(tmp_path / "out" / f"{record['name']}_overlay.png").size == colours.size
    overlay = np.asarray(Image.open(tmp_path / "out/even_overlay.png"), float)
    mixed = (np.asarray(Image.open(paths[3]), float) + PALETTE[labels["even"]]) / 2
    assert np.abs(overlay - mixed).max() <= 1


def test_tiles_make_the_same_picture_as_the_whole(run, tmp_path):
    path = photo(tmp_path / "large.png", 411, 357)
    _, whole = segment(run, [path], tmp_path / "whole", tile=512, flip=True)
    _, tiled = segment(run, [path], tmp_path / "tiled", tile=256, flip=True)
    assert (whole["large"] != tiled["large"]).mean() < 1e-4  # a logit may lie within rounding of 0


def test_a_file_that_is_read_by_the_tile_gives_the_same(run, tmp_path, monkeypatch):
    path = photo(tmp_path / "plain.png", 411, 357)
    Image.open(path).save(tmp_path / "mapped.tif")
    _, plain = segment(run, [path], tmp_path / "plain", tile=256)
    monkeypatch.setattr(images, "read_rgb", None)  # nothing decodes the whole
    _, mapped = segment(run, [tmp_path / "mapped.tif"], tmp_path / "mapped", tile=256)
    np.testing.assert_array_equal(plain["plain"], mapped["mapped"])
    overlays = [Image.open(tmp_path / name / f"{name}_overlay.png") for name in ("plain", "mapped")]
    np.testing.assert_array_equal(*map(np.asarray, overlays))


class Network:
    """In the place of the trained one: notes its calls, and how many ran at once."""

    def __init__(self, monkeypatch, call=lambda: time.sleep(0.01)):
        monkeypatch.setattr(predict, "make_predict", lambda *_: self)
        self.call, self.calls, self.now, self.most = call, 0, 0, 0

    def __call__(self, pixels):
        self.calls, self.now = self.calls + 1, self.now + 1
        self.most = max(self.most, self.now)
        self.call()
        self.now -= 1
        return tf.zeros(pixels.shape[:3], tf.uint8)


def test_memory_is_that_of_one_tile_however_many_images_go_by_the_tile(run, tmp_path, monkeypatch, capsys):
    network = Network(monkeypatch)
    paths = [photo(tmp_path / f"{index}.png", 400, 340) for index in range(6)]
    assert segment(run, paths, tmp_path / "out", tile=256)[0] == 0
    assert network.calls >= 4 * len(paths) and network.most == 1
    assert 0 < int(re.search(r"network (\d+)%", capsys.readouterr().out)[1]) <= 100


def test_ctrl_c_ends_it_within_a_tile(run, tmp_path, monkeypatch):
    def interrupted():
        if network.calls == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)

    network = Network(monkeypatch, interrupted)
    path = photo(tmp_path / "large.png", 600, 600)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has none
    try:
        with pytest.raises(KeyboardInterrupt):
            segment(run, [path], tmp_path / "out", tile=256)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert network.calls < 5
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["shares.jsonl"]


def test_flip_gives_mirrored_images_mirrored_masks(run, tmp_path):
    path = photo(tmp_path / "one.png", 64, 48)
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "two.png")
    _, plain = segment(run, [path], tmp_path / "plain")
    _, labels = segment(run, [path, tmp_path / "two.png"], tmp_path / "out", flip=True)
    np.testing.assert_array_equal(labels["one"], labels["two"][:, ::-1])
    assert (labels["one"] != plain["one"]).any()


def test_bad_images_are_skipped_and_named_and_the_good_ones_done(run, tmp_path, capsys):
    good = [photo(tmp_path / f"{index}.png", 32, 32) for index in range(40)]  # more than a batch
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:700])
    head = b"IHDR" + (30000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    bomb = good[0].read_bytes()
    (tmp_path / "bomb.png").write_bytes(bomb[:12] + head + zlib.crc32(head).to_bytes(4, "big") + bomb[33:])
    bad = [tmp_path / name for name in ("text.jpg", "cut.png", "bomb.png", "missing.jpg")]
    code, labels = segment(run, [*good[:20], *bad, *good[20:]], tmp_path / "out")
    assert code == 1
    assert labels.keys() == {path.stem for path in good}
    for path in good:
        np.testing.assert_array_equal(labels[path.stem], expected(run, path))
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    for path in bad:
        assert sum(line.startswith(f"skipped: {path}: ") for line in errors) == 1


def test_an_output_folder_that_cannot_be_made_ends_it(run, tmp_path):
    path = photo(tmp_path / "a.png", 16, 16)
    with pytest.raises(InputError, match="a.png.*cannot be written"):
        segment(run, [path], path / "out")


def test_names_never_collide(tmp_path):
    paths = [
        tmp_path / name
        for name in (
            *("a/1.jpg", "b/1.jpg", "b/1.png", "c/a/1.jpg"),
            *("2.jpg", "B.png", "x/A.png", "x/a.jpg", "x/a.png"),
        )
    ]
    for path in paths:
        photo(path, 8, 8)
    folders = [tmp_path, *(path.parent for path in paths)]
    found = photos.find([*folders, tmp_path / "a" / ".." / "a"])
    assert sorted(map(os.path.abspath, found)) == sorted(map(str, paths))
    names = photos.output_names(found)
    assert len({name.casefold() for name in names.values()}) == len(paths)
    assert names[tmp_path / "2.jpg"] == "2" and names[tmp_path / "B.png"] == "B"
    assert names[tmp_path / "b/1.png"] == "1.png"
    assert not any(name.startswith("/") or ".." in name for name in names.values())
    with pytest.raises(InputError, match="no images"):
        photos.find([])


def test_every_experiment_is_found_by_its_name():
    verbs = {"evaluate", "predict", "export", "download", "benchmark"}
    for name in {path.stem for path in Path(experiments.__file__).parent.glob("[a-z]*.py")} - verbs:
        module = article(name)
        assert module.experiment(cli.parse(module.define_flags)).name == name


def test_a_run_is_restored_without_its_data(road_run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(road_run, moved)
    flags = (moved / "flags.cfg").read_text().replace("pairs", "gone")
    (moved / "flags.cfg").write_text(flags)
    weights = restored(moved, "last").weights
    arrays, _ = checkpoint.load(road_run / "checkpoints/last.npz")
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, arrays[name])
    with pytest.raises(InputError, match="data_dir.*no such folder"):
        restored(moved, data=True)


def test_what_is_no_run_is_refused_in_a_sentence(road_run, tmp_path):
    with pytest.raises(InputError, match="--run_dir"):
        restore.restore(SimpleNamespace(run_dir=None), article)
    with pytest.raises(InputError, match="no flags.cfg"):
        restored(tmp_path)
    changed = tmp_path / "changed"
    shutil.copytree(road_run, changed)
    path = changed / "checkpoints/best.npz"
    arrays, state = checkpoint.load(path)
    arrays["logit"] = np.zeros([1, 1, 16, 5])
    del arrays["down0/conv1"]
    checkpoint.save(path.parent, arrays, state)
    checkpoint.keep(path.parent, "best")
    with pytest.raises(InputError, match="another network.*: down0/conv1, logit"):
        restored(changed)
    path.unlink()
    with pytest.raises(InputError, match="best.npz: no such checkpoint"):
        restored(changed)
    flags = (changed / "flags.cfg").read_text()
    for name in ("predict", "os", "../core", "no_such"):
        (changed / "flags.cfg").write_text(flags.replace("cityscape_road", name, 1))
        with pytest.raises(InputError, match="no experiment"):
            restored(changed)


def test_command_line(road_run, tmp_path):
    photo(tmp_path / "in/a.png", 40, 30)
    (tmp_path / "in/b.jpg").write_text("not an image")
    folders = [f"--run_dir={road_run}", f"--output_dir={tmp_path / 'out'}", tmp_path / "in"]
    done = python("experiments.predict", *folders)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"skipped: {tmp_path / 'in/b.jpg'}: ") and done.stderr.count("\n") == 1
    assert Image.open(tmp_path / "out/a_labels.png").size == (40, 30)
    assert "1 images in" in done.stdout and "network" in done.stdout


def test_train_size_is_the_runs(road_run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(predict, "run", lambda *arguments, **options: seen.append(options))
    path = photo(tmp_path / "a.png", 40, 30)
    for size in ("train", "native"):
        flags = SimpleNamespace(
            run_dir=str(road_run), checkpoint="last", output_dir="x", size=size, tile=64, tta="flip"
        )
        verb.run(flags, [str(path)])
    assert [options["resize"] for options in seen] == [32, None]
    assert seen[0]["flip"] and Path("x").exists() is False
