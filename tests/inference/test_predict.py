"""Prediction writes results in the size of each image and names the images that cannot be read."""

import dataclasses
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import refused
from PIL import Image
from small_networks import small_articles

import experiments
from core.data import images
from core.inference import (
    decision,
    outputs,
    photos,
    pipeline,
    png,
    predict,
    receptive_field,
    records,
    restore,
    scaling,
)
from core.models import road_unet
from core.runs import checkpoint
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import __main__ as listing
from experiments import article
from experiments import predict as verb

pytestmark = pytest.mark.usefixtures("small_articles")
PALETTE = np.array([(0, 0, 0), (128, 64, 128)])


@pytest.fixture(scope="module")
def run(road_run):
    """Return the restored `road_run`. Its last layer is random, so that noise images get both classes."""
    with small_articles():
        run = experiments.load(road_run)
    kernel = np.random.RandomState(3).normal(size=run.weights["logit"].shape)
    run.weights["logit"].assign(kernel)
    return run


def segment(run, paths, output_dir, **options):
    """Run `predict`; return its exit code and a dict: name of a result -> the class ids that it wrote."""
    sources, options = photos.find(paths), predict.Options(**options)
    code = predict.run(run.experiment, run.weights, run.dtype, sources, output_dir, options)
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
    """Return the class ids that the network's forward pass gives for an image file of unchanged size.

    The forward pass requires that height and width are divisible by 2.
    """
    return (logits(run, path)[..., 0] > 0).astype(np.uint8)


def logits(run, path, size=None):
    """Return the logits [H, W, 1] of an image file. If size is given, the image is first scaled to this size.

    size: (height, width) in pixels.
    """
    image = Image.open(path).convert("RGB")
    image = image.resize(size[::-1], run.experiment.dataset.resample) if size else image
    return road_unet.forward(run.weights, np.asarray(image, np.float32)[None]).numpy()[0]


@pytest.mark.parametrize("resize", [None, 32])
def test_each_image_gets_three_pictures_in_its_own_size_and_a_line_in_shares_jsonl(
    run, tmp_path, capsys, resize
):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        photo(tmp_path / "odd.png", 61, 37),
        photo(tmp_path / "turned.jpg", 48, 32, exif=exif),
        photo(tmp_path / "tiny.png", 1, 1),
        photo(tmp_path / "even.png", 64, 48),
    ]
    Image.open(paths[0]).convert("L").save(tmp_path / "grey.png")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((16, 16), 500, np.uint16)).save(deep)
    sources = [*paths, tmp_path / "grey.png", deep]
    code, labels = segment(run, sources, tmp_path / "out", resize=resize, white_level=2000)
    assert code == 0 and "turned.jpg: turned upright" in capsys.readouterr().err
    shapes = {name: found.shape for name, found in labels.items()}
    assert shapes == {
        "odd": (37, 61),
        "turned": (48, 32),
        "tiny": (1, 1),
        "even": (48, 64),
        "grey": (37, 61),
        "deep": (16, 16),
    }
    if not resize:
        np.testing.assert_array_equal(labels["even"], expected(run, paths[3]))
        assert 0.01 < labels["even"].mean() < 0.99
    records = [json.loads(line) for line in (tmp_path / "out/shares.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == ["odd", "turned", "tiny", "even", "grey", "deep"]
    for record in records:
        found = labels[record["name"]]
        assert record["shares"] == {"background": (found == 0).mean(), "road": (found == 1).mean()}
        colours = Image.open(tmp_path / "out" / f"{record['name']}_colours.png").convert("RGB")
        np.testing.assert_array_equal(colours, PALETTE[found])
        assert Image.open(tmp_path / "out" / f"{record['name']}_overlay.png").size == colours.size
    overlay = np.asarray(Image.open(tmp_path / "out/even_overlay.png"), float)
    mixed = (np.asarray(Image.open(paths[3]), float) + PALETTE[labels["even"]]) / 2
    assert np.abs(overlay - mixed).max() <= 1
    overlay = Image.open(tmp_path / "out/deep_overlay.png")  # sample 500 of 2000 becomes 64
    np.testing.assert_array_equal(overlay, 32 + PALETTE[labels["deep"]] // 2)


def test_an_edited_forward_pass_may_compute_with_weights_as_with_tensors(run, tmp_path):
    """In prediction, weights are constants. Slices with tensors and np.float64 factors work nevertheless."""

    def forward(weights, images, **options):
        kernel = weights["logit"][..., : tf.constant(1)] * np.float64(-1)
        return road_unet.forward({**weights, "logit": kernel}, images, **options)

    path = photo(tmp_path / "photo.png", 64, 48)
    edited = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, forward=forward))
    _, labels = segment(edited, [path], tmp_path / "out")
    np.testing.assert_array_equal(labels["photo"], 1 - expected(run, path))


def test_memory_mapped_and_decoded_files_give_the_same_result(run, tmp_path, monkeypatch):
    path = photo(tmp_path / "plain.png", 411, 357)
    Image.open(path).save(tmp_path / "mapped.tif")
    _, whole = segment(run, [path], tmp_path / "whole", tile=512, flip=True)
    _, plain = segment(run, [path], tmp_path / "plain", tile=256, flip=True)
    assert np.mean(plain["plain"] == whole["plain"]) > 0.999  # rounding may change the class of a pixel
    monkeypatch.setattr(images, "read_rgb", None)  # a call, which would decode the whole file, fails
    _, mapped = segment(run, [tmp_path / "mapped.tif"], tmp_path / "mapped", tile=256, flip=True)
    np.testing.assert_array_equal(plain["plain"], mapped["mapped"])
    overlays = [Image.open(tmp_path / name / f"{name}_overlay.png") for name in ("plain", "mapped")]
    np.testing.assert_array_equal(*map(np.asarray, overlays))
    mixed = (np.asarray(Image.open(path), float) + PALETTE[plain["plain"]]) / 2
    assert np.abs(np.asarray(overlays[0], float) - mixed).max() <= 1
    (record,) = map(json.loads, (tmp_path / "mapped/shares.jsonl").open())
    assert record["shares"]["road"] == (mapped["mapped"] == 1).mean()


class Network:
    """A replacement for the network, which returns zeros as class ids and calls `call` in each of its calls.

    calls: the number of calls so far. now: the number of calls that run now. most: the largest value of now.
    """

    def __init__(self, monkeypatch, call=lambda: time.sleep(0.01)):
        monkeypatch.setattr(predict, "make_network", lambda *_: self)
        self.call, self.calls, self.now, self.most = call, 0, 0, 0

    def __call__(self, pixels):
        self.calls, self.now = self.calls + 1, self.now + 1
        self.most = max(self.most, self.now)
        self.call()
        self.now -= 1
        return [tf.zeros(pixels.shape[:3], tf.uint8)]


def test_one_tile_is_computed_at_a_time_and_the_receptive_field_once(run, tmp_path, monkeypatch, capsys):
    network, probes = Network(monkeypatch), []
    probe = receptive_field.radius
    monkeypatch.setattr(receptive_field, "radius", lambda *args: probes.append(1) or probe(*args))
    paths = [photo(tmp_path / f"{index}.png", 400, 340) for index in range(6)]
    assert segment(run, paths, tmp_path / "out", tile=256)[0] == 0
    assert network.calls >= 4 * len(paths) and network.most == 1
    assert len(probes) == 1
    assert 0 < int(re.search(r"network (\d+)%", capsys.readouterr().out)[1]) <= 100


def test_ctrl_c_stops_prediction_after_the_current_tile(run, tmp_path, monkeypatch):
    jobs, init = [], predict.Job.__init__
    monkeypatch.setattr(predict.Job, "__init__", lambda job, *given: jobs.append(job) or init(job, *given))

    def interrupted():
        time.sleep(0.1)  # Python may notice a signal late that arrives just before the main thread waits
        if network.calls == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert jobs[0].stopped.wait(30)

    network = Network(monkeypatch, interrupted)
    path = photo(tmp_path / "large.png", 600, 600)
    # a background job of a shell ignores SIGINT
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            segment(run, [path], tmp_path / "out", tile=256)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert network.calls == 2
    assert {each.name for each in (tmp_path / "out").iterdir()} == {".lock", "shares.jsonl"}


def test_with_tta_flip_a_mirrored_image_gets_the_mirrored_mask(run, tmp_path):
    path = photo(tmp_path / "one.png", 64, 48)
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "two.png")
    _, plain = segment(run, [path], tmp_path / "plain")
    _, labels = segment(run, [path, tmp_path / "two.png"], tmp_path / "out", flip=True)
    np.testing.assert_array_equal(labels["one"], labels["two"][:, ::-1])
    assert (labels["one"] != plain["one"]).any()


def test_an_output_folder_that_cannot_be_made_is_refused(run, tmp_path):
    path = photo(tmp_path / "a.png", 16, 16)
    with pytest.raises(InputError, match="a.png.*cannot be written"):
        segment(run, [path], path / "out")


def test_output_names_never_collide(tmp_path):
    paths = [
        tmp_path / name
        for name in (
            *("a/1.jpg", "b/1.jpg", "b/1.png", "c/a/1.jpg"),
            *("2.jpg", "B.png", "y/A.png", "x/a.jpg", "x/a.png"),
        )
    ]
    for path in paths:
        photo(path, 8, 8)
    folders = [tmp_path, *(path.parent for path in paths)]
    found = photos.find([*folders, tmp_path / "a" / ".." / "a"])
    assert sorted(os.path.abspath(source.path) for source in found) == sorted(map(str, paths))
    names = photos.output_names(found)
    assert len({name.casefold() for name in names.values()}) == len(paths)
    assert names[photos.Source(tmp_path / "2.jpg")] == "2" and names[photos.Source(tmp_path / "B.png")] == "B"
    assert names[photos.Source(tmp_path / "b/1.png")] == "1.png"
    assert not any(name.startswith("/") or ".." in name for name in names.values())
    with pytest.raises(InputError, match="no images"):
        photos.find([])


def test_each_page_of_a_tiff_file_is_segmented(run, tmp_path, capsys):
    pages = [Image.open(photo(tmp_path / f"{width}.png", width, 32)) for width in (32, 48, 64)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    photo(tmp_path / "stack_page_002.png", 16, 16)  # this file has the name of the results of a page
    for _ in range(2):
        _, labels = segment(run, [tmp_path / "stack.tif", tmp_path / "stack_page_002.png"], tmp_path / "out")
    for number, width in enumerate((32, 48, 64), 1):
        name = "stack.tif_page_002" if number == 2 else f"stack_page_{number:03}"
        np.testing.assert_array_equal(labels.pop(name), expected(run, tmp_path / f"{width}.png"))
    assert list(labels) == ["stack_page_002.png"]
    assert "only the first" not in capsys.readouterr().err


def test_a_second_call_keeps_earlier_results_and_does_not_segment_them(run, tmp_path, capsys):
    first, second = photo(tmp_path / "a/1.png", 48, 32), photo(tmp_path / "b/1.png", 32, 32)
    segment(run, [tmp_path / "a"], tmp_path / "a")
    capsys.readouterr()
    with open(tmp_path / "a/shares.jsonl", "a") as file:
        file.write('{"image": "cut')  # an incomplete line, as after a kill
    code, labels = segment(run, [tmp_path / "a", tmp_path / "b"], tmp_path / "a")
    assert code == 0 and "left out 3 results of earlier predictions" in capsys.readouterr().out
    lines = (tmp_path / "a/shares.jsonl").read_text().splitlines()
    images = {record["name"]: record["image"] for record in map(json.loads, lines)}
    assert images == {"1": str(first), "1.png": str(second)} and len(lines) == 2
    np.testing.assert_array_equal(labels["1"], expected(run, first))
    np.testing.assert_array_equal(labels["1.png"], expected(run, second))


@pytest.mark.parametrize("name", ["x_labels", "x_colours", "x_overlay", "x_probability_1"])
def test_a_png_file_of_other_origin_is_never_overwritten(run, tmp_path, name):
    path, mask = photo(tmp_path / "photos/x.jpg", 16, 16), photo(tmp_path / f"photos/{name}.png", 16, 16)
    content = mask.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for output_dir in (tmp_path / "photos", tmp_path / "link"):
        with refused(f"{output_dir}/{name}.png"):
            segment(run, [path], output_dir, probabilities="png")
    assert mask.read_bytes() == content


def test_an_array_of_other_origin_is_never_overwritten(run, tmp_path):
    path, array = photo(tmp_path / "x.jpg", 16, 16), tmp_path / "x_probabilities.npy"
    np.save(array, np.zeros([16, 16, 2]))
    with refused(array):
        segment(run, [path], tmp_path, probabilities="npy")
    assert np.load(array).dtype == np.float64


def test_results_with_probabilities_are_replaced_by_a_second_call(run, tmp_path):
    path = photo(tmp_path / "x.jpg", 16, 16)
    for probabilities in ("npy", "npy", "png", "png"):
        assert segment(run, [path], tmp_path, probabilities=probabilities)[0] == 0
    assert len(list(tmp_path.glob("x_*.png"))) == 5 and all(map(png.is_ours, tmp_path.glob("x_*.png")))


def test_a_photo_gets_its_record_even_if_writing_an_earlier_photo_fails(run, tmp_path, monkeypatch):
    paths, written = [photo(tmp_path / f"{name}.png", 16, 16) for name in "ab"], threading.Event()
    write = outputs.write

    def write_b_before_a(each, *arguments):
        if each.name == "a":
            written.wait(30)
            raise InputError("no space left.")
        record = write(each, *arguments)
        written.set()
        return record

    monkeypatch.setattr(outputs, "write", write_b_before_a)
    with pytest.raises(InputError, match="no space left"):
        segment(run, paths, tmp_path / "out")
    assert [json.loads(line)["name"] for line in (tmp_path / "out/shares.jsonl").open()] == ["b"]


def test_the_progress_line_reaches_its_total_with_tiles_and_unreadable_images(run, tmp_path, monkeypatch):
    Network(monkeypatch, lambda: None)
    monkeypatch.setattr(receptive_field, "radius", lambda *_: 8)
    jobs = []
    monkeypatch.setattr(predict.Job, "report", lambda job, seconds: jobs.append(job))
    paths = [photo(tmp_path / f"{size}.png", size, size) for size in (16, 300, 330, 410)]
    segment(run, [*paths, tmp_path / "missing.png"], tmp_path / "out", tile=64)
    assert jobs[0].bar.done == jobs[0].bar.total == 5


def test_the_size_of_a_batch_includes_the_padding():
    tiny = [photos.Photo(None, "", 8, 8, None, np.zeros([8, 8, 3], np.uint8))] * 8
    assert [len(batch) for batch in pipeline.batches(tiny, 4 * 32 * 32, 32)] == [4, 4]


def test_a_file_that_is_too_large_to_be_decoded_is_refused_with_a_cure(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photos, "MAX_PIXELS", 100)
    assert segment(run, [photo(tmp_path / "a.png", 16, 16)], tmp_path / "out", tile=8)[0] == 1
    assert "a.png: has more than 100 pixels; save it as an uncompressed" in capsys.readouterr().err


def test_two_processes_cannot_write_into_one_output_folder(run, tmp_path):
    with records.opened(tmp_path / "out"), pytest.raises(InputError, match="another process writes"):
        segment(run, [photo(tmp_path / "a.png", 16, 16)], tmp_path / "out")


def test_subfolders_are_searched_if_recursive_and_mentioned_if_not(tmp_path, capsys):
    for name in ("1.png", "x/2.png", "x/y/3.png", "z/4.png", ".hidden/5.png"):
        photo(tmp_path / name, 8, 8)
    assert [source.path.name for source in photos.find([tmp_path])] == ["1.png"]
    message = f"not searched without --recursive: {tmp_path / 'x'} and 1 more subfolders"
    assert message in capsys.readouterr().out
    found = photos.find([tmp_path], recursive=True)
    assert [source.path.name for source in found] == ["1.png", "2.png", "3.png", "4.png"]


@pytest.mark.parametrize(
    "strip, resample", [(100, Image.Resampling.BILINEAR), (2**22, Image.Resampling.NEAREST)]
)
def test_class_ids_are_decided_from_scaled_logits(run, tmp_path, monkeypatch, strip, resample):
    """strip: the number of values in a strip. resample: the filter that resized the training photos."""
    dataset = dataclasses.replace(run.experiment.dataset, resample=resample)
    run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, dataset=dataset))
    monkeypatch.setattr(scaling, "STRIP_VALUES", strip)
    path = photo(tmp_path / "a.png", 75, 41)
    _, labels = segment(run, [path], tmp_path / "out", resize=32, probabilities="png")
    scaled = tf.image.resize(logits(run, path, (32, 32)), [41, 75]).numpy()
    decided = np.abs(scaled[..., 0]) > 1e-5
    np.testing.assert_array_equal(labels["a"][decided], scaled[..., 0][decided] > 0)
    shares = np.asarray(Image.open(tmp_path / "out/a_probability_1.png")) / 65535
    np.testing.assert_allclose(shares, tf.sigmoid(scaled[..., 0]), rtol=0, atol=1e-5)


def test_probabilities_are_written_and_the_threshold_is_applied(run, tmp_path):
    path = photo(tmp_path / "large.png", 411, 357)
    _, labels = segment(run, [path], tmp_path / "out", tile=256, threshold=0.7, probabilities="npy")
    shares = np.load(tmp_path / "out/large_probabilities.npy")
    assert shares.shape == (357, 411, 2) and shares.dtype == np.float16
    np.testing.assert_allclose(shares.sum(axis=-1, dtype=np.float32), 1, atol=1e-3)
    pixels = np.pad(np.asarray(Image.open(path), np.float32), ((0, 1), (0, 1), (0, 0)), "edge")
    whole = road_unet.forward(run.weights, pixels[None]).numpy()[0, :357, :411, 0]
    np.testing.assert_allclose(shares[..., 1], tf.sigmoid(whole), atol=1e-3)
    clear = np.abs(whole - np.log(0.7 / 0.3)) > 1e-4
    np.testing.assert_array_equal(labels["large"][clear], (tf.sigmoid(whole) > 0.7)[clear])


def test_a_threshold_applies_to_the_probability_of_class_1():
    """sigmoid(-0.405) is 0.4. With two logits per pixel, the sigmoid takes logit 1 minus logit 0."""
    one, two = [[0.3], [-0.4], [-0.41]], [[0.0, 0.3], [0.2, -0.2], [0.2, -0.21]]
    for logits in (one, two):
        np.testing.assert_array_equal(decision.class_ids(tf.constant(logits), 0.4), [1, 1, 0])
        np.testing.assert_array_equal(decision.class_ids(tf.constant(logits)), [1, 0, 0])


def test_a_threshold_needs_two_classes(run, tmp_path):
    three = dataclasses.replace(run.experiment, classes=("a", "b", "c"))
    with pytest.raises(InputError, match="--threshold: needs two classes, but this run has 3"):
        segment(dataclasses.replace(run, experiment=three), [tmp_path / "a"], tmp_path / "out", threshold=0.4)


def test_every_experiment_is_found_by_its_name():
    for name in listing.commands(Path(experiments.__file__).parent)[0]:
        if name != "own_images":  # the classes of own_images are found in the data
            module = article(name)
            assert module.experiment(cli.parse(module.define_flags)).name == name


def test_a_run_is_restored_without_its_data(road_run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(road_run, moved)
    flags = (moved / "flags.cfg").read_text().replace("pairs", "gone").replace("/cache", "/gone")
    (moved / "flags.cfg").write_text(flags)
    run = experiments.load(moved, "last")
    weights = run.weights
    assert run.flags.cache_dir == "cache"  # the default, because the folder in flags.cfg does not exist
    assert run.flags.run_dir == str(moved)  # own_images reads its classes from this folder
    arrays, _ = checkpoint.load(road_run / "checkpoints/last.npz")
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, arrays[name])
    with pytest.raises(InputError, match="data_dir.*no such folder"):
        experiments.load(moved, data=True)


def test_a_folder_that_is_not_a_run_is_refused(road_run, tmp_path):
    with pytest.raises(InputError, match="--run_dir"):
        restore.restore(SimpleNamespace(run_dir=None), article)
    changed = tmp_path / "changed"
    shutil.copytree(road_run, changed)
    path = changed / "checkpoints/best.npz"
    arrays, state = checkpoint.load(path)
    arrays["logit"] = np.zeros([1, 1, 16, 5])
    del arrays["down0/conv1"]
    checkpoint.save(path.parent, arrays, state)
    checkpoint.keep(path.parent, "best")
    with pytest.raises(InputError, match=r"best.npz: .*another network.*: down0/conv1, logit"):
        experiments.load(changed)
    path.unlink()
    with pytest.raises(InputError, match="best.npz: no such checkpoint"):
        experiments.load(changed)


def test_command_line_flags_reach_the_prediction(road_run, tmp_path, monkeypatch):
    seen, modes = [], []
    monkeypatch.setattr(restore.lowering, "configure", modes.append)
    monkeypatch.setattr(predict, "run", lambda *arguments: seen.append(arguments[-1]))
    photo(tmp_path / "photos/deep/a.png", 40, 30)
    for size in ("train", "native"):
        arguments = ["--checkpoint=last", "--tile=64", "--tta=flip", "--threshold=0.4", "--white_level=4095"]
        arguments += ["--recursive", "--probabilities=png", "--lowering=off"]
        flags = cli.parse(verb.define_flags, [f"--run_dir={road_run}", f"--size={size}", *arguments])
        verb.run(flags, [str(tmp_path / "photos")])
    options = predict.Options(
        resize=32, tile=64, flip=True, threshold=0.4, white_level=4095, probabilities="png"
    )
    assert seen == [options, dataclasses.replace(options, resize=None)] and modes == ["off", "off"]


def test_by_default_photos_get_the_white_level_of_the_training(road_run, tmp_path, monkeypatch):
    run, seen = shutil.copytree(road_run, tmp_path / "run"), []
    text = (run / "flags.cfg").read_text()
    assert "--white_level=0\n" in text
    (run / "flags.cfg").write_text(text.replace("--white_level=0\n", "--white_level=2000\n"))
    monkeypatch.setattr(predict, "run", lambda *arguments: seen.append(arguments[-1].white_level))
    path = photo(tmp_path / "a.png", 40, 30)
    for arguments in ([], ["--white_level=0"]):
        verb.run(cli.parse(verb.define_flags, [f"--run_dir={run}", *arguments]), [str(path)])
    assert seen == [2000, 0]
