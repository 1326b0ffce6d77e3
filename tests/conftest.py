"""Helpers, small data sets and a finished run that several tests share."""

import contextlib
import dataclasses
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # tests of lowering and of bit-identical runs need a CPU
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # tests expect an empty stderr
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"  # servers and workers of the tests
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else NumPy threads of pytest workers compete for cores

import numpy as np
import pytest
from absl import flags
from PIL import Image
from small_networks import small, small_articles

from core.data import dubai_aerial
from core.data.cache import Examples, photo_hash
from core.data.synthetic import aerial_scenes
from core.inference import render
from core.models import road_unet
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import loop
from experiments import cityscape_road
from experiments.benchmark.measurement import peak_mib

ROOT = Path(__file__).parent.parent


def python(*arguments, **options):
    """Run `python -m ARGUMENTS` in the repository; return a `CompletedProcess` with its output as text.

    options: further arguments of `subprocess.run`. Raises TimeoutExpired after 300 seconds.
    """
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


@contextlib.contextmanager
def refused(named):
    """Context manager whose body must raise an InputError.

    The message of the error must be one sentence that contains str(named).
    """
    with pytest.raises(InputError) as caught:
        yield caught
    assert_one_sentence(str(caught.value), named)


def assert_one_sentence(message, named):
    assert str(named) in message and "\n" not in message and message.endswith("."), message


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Make trainings draw no curves, which saves time. After `monkeypatch.undo()`, they draw curves."""
    monkeypatch.setattr(render, "curves", lambda history: None)


@pytest.fixture
def exit_message(monkeypatch):
    """Return a function (run) -> exit message. The function passes `run` to `cli.main`, which must exit."""

    def call(run):
        with pytest.raises(SystemExit) as ended:
            cli.main(lambda values: None, run)
        return ended.value.code

    monkeypatch.setattr("sys.argv", ["test"])
    yield call
    flags.FLAGS.remove_flag_values(["version"])  # so that `cli.main` can define --version again


@pytest.fixture
def limits(tmp_path):
    """Fail a test that runs for more than 30 seconds, or needs 2 GiB or more of additional memory."""

    def expired(*_):
        for pipe in filter(Path.is_fifo, tmp_path.rglob("*")):
            os.close(os.open(pipe, os.O_RDWR))  # unblocks a thread that waits to open the pipe
        pytest.fail("not done after 30 seconds")

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak memory of earlier tests
    handler, memory_before = signal.signal(signal.SIGALRM, expired), peak_mib()
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    assert peak_mib() - memory_before < 2048


@contextlib.contextmanager
def file_size_limit(size):
    """Context manager in which a write fails if it makes a file larger than `size` bytes.

    Text printed to stdout is discarded, because pytest writes it to a file, which the limit would affect too.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.redirect_stdout(io.StringIO()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def road_flags(run_dir, *arguments):
    """Return the flags of cityscape_road, by default for 32x32 pixels. arguments: further flags."""
    return cli.parse(cityscape_road.define_flags, [f"--run_dir={run_dir}", "--size=32", *arguments])


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """Return the cache folder shared by all pytest workers. Each generated data set is written there once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "cache").mkdir(exist_ok=True)
    return folder / "cache"


@pytest.fixture
def pairs(tmp_path):
    """Return a folder with six training and three validation pairs, as `write_pair` writes them."""
    return write_pairs(tmp_path / "pairs", train=6, val=3)


def write_pairs(folder, **counts):
    """Write pairs with different photos to folder/SPLIT/1.jpg, 2.jpg and so on; return the folder.

    counts: name of a split -> number of pairs. `write_pair` describes a pair.
    """
    for position, (split, count) in enumerate(counts.items()):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            write_pair(folder / split / f"{index + 1}.jpg", seed=100 * position + index)
    return folder


def write_tiles(folder):
    """Write aerial photos and masks of 48x48 pixels, three in each of two tiles; return the folder."""
    palette = np.array(dubai_aerial.PALETTE, np.uint8)
    for tile in (1, 2):
        for part in (1, 2, 3):
            photo, class_ids = aerial_scenes.scene((tile, part), size=(48, 48))
            for kind, pixels in (("images", photo), ("masks", palette[class_ids])):
                path = folder / f"Tile {tile}/{kind}/image_part_{part:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return folder


def decoded(folder, images, masks, rows=None):
    """Write images and masks to files in a folder; return `Examples` that map these files into memory.

    images: uint8 [M, H, W, 3]. masks: uint8 [M, H, W]. rows: the indices, from 0 to M - 1, of the examples
    in the split; by default all.
    """

    def mapped(name, array):
        np.ascontiguousarray(array).tofile(folder / name)
        return np.memmap(folder / name, np.uint8, "r", shape=array.shape)

    return Examples(
        data_dir=folder,
        checksum=0,
        images=mapped("images.u8", images),
        masks=mapped("masks.u8", masks),
        rows=np.arange(len(images)) if rows is None else np.array(rows),
        owner=np.arange(len(images)),
        files=[],
        class_pixels=np.zeros(256, np.int64),
        photo_hashes=np.array([photo_hash(np.asarray(image)) for image in images]),
    )


def write_pair(path, *, seed=0, side=32, road=(128, 64, 128), **options):
    """Write a pair: an image file with a photo of noise on the left and its class colours on the right.

    Photo and class colours have side x side pixels each. In the upper half, the class colour is black. In the
    lower half, the class colour is `road`, and the photo is darker. options: arguments of Pillow's save.
    """
    photo = np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)
    colours = np.zeros((side, side, 3), np.uint8)
    colours[side // 2 :] = road
    photo[side // 2 :] //= 4
    pair = Image.fromarray(np.concatenate([photo, colours], axis=1))
    pair.save(path, **{"quality": 95, "subsampling": 0, **options})


@pytest.fixture(scope="session")
def road_run(tmp_path_factory):
    """Return the folder of a finished run of cityscape_road: two epochs on eight pairs at 32x32 pixels.

    The run has a small network, so tests that restore the run need the fixture `small_articles`.
    """
    folder = tmp_path_factory.mktemp("road")
    pairs = write_pairs(folder / "pairs", train=8, val=5)
    folders = [f"--data_dir={pairs}", f"--cache_dir={folder / 'cache'}"]
    values = road_flags(folder / "run", *folders, "--batch_size=2", "--epochs=2")
    with small_articles():
        loop.run(cityscape_road.experiment(values), cityscape_road.define_flags, values)
    return folder / "run"


def with_other_code(run, folder):
    """Copy the run folder `run` to `folder`, and change the recorded hash of core/ops.py; return `folder`."""
    shutil.copytree(run, folder)
    (item,) = json.loads((folder / "code.json").read_text())
    item["files"]["core/ops.py"] = "0123456789abcdef"
    (folder / "code.json").write_text(json.dumps([item]))
    return folder


@pytest.fixture(name="small_articles")
def use_small_articles():
    """Make every experiment and every restored run use a small network during a test."""
    with small_articles():
        yield


def small_road(values=None, **changes):
    """Return the experiment cityscape_road with a small network.

    values: the parsed flags; by default the flags that `road_flags` returns. changes: field of the experiment
    -> replacement.
    """
    experiment = cityscape_road.experiment(values or road_flags("unused"))
    return dataclasses.replace(experiment, **small(road_unet) | changes)


def train_road(pairs, run_dir, *arguments, **changes):
    """Train a small road network for three epochs of two steps; return the exit code.

    pairs: the folder of the fixture `pairs`. arguments: further command-line arguments. changes: field of the
    experiment -> replacement.
    """
    folders = [f"--data_dir={pairs}", f"--cache_dir={pairs.parent / 'cache'}"]
    sizes = ["--size=16", "--batch_size=4", "--epochs=3"]
    values = road_flags(run_dir, *folders, *sizes, *arguments)
    return loop.run(small_road(values, **changes), cityscape_road.define_flags, values)


@pytest.fixture
def start(pairs, tmp_path):
    """Return a function (name, *arguments, **changes) that calls `train_road`.

    The run folder is tmp_path / name.
    """
    return lambda name, *arguments, **changes: train_road(pairs, tmp_path / name, *arguments, **changes)
