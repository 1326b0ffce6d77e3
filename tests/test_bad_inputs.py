"""Bad input from outside: a corpus that the tests make, each case through the code that meets it.

The rule: what cannot be right is refused by one `InputError`, a sentence on one line that
names the file or the flag and says what to do; what is right after all gives exactly what
the clean input gives. There is no third way: no other exception, no hang, no gigabytes, no
wrong result without a word. Tables hold what can be listed; hypothesis picks the places of
cuts and flipped bits.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import decoded
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st
from PIL import Image

from core.data import (
    resident,
)
from core.inference import photos, predict, restore
from core.runs import checkpoint, run_folder
from core.runtime import cli, distribution, files
from core.runtime.errors import InputError
from core.training import adam, loop
from experiments import article, cityscape_road

SECONDS = 30  # for a case; most take some hundredths of one
MEMORY = 2**31  # bytes that a case may add to the peak
SIDE = 32  # pixels of the images here
CURE = re.compile(
    r"\b(add|begin|change|correct|delete|do not use|fetch|free|make|mend|move|must|name|pass|put|remove"
    r"|replace|restore|scale|see|take|unpack)\b"
)
SHARES = st.integers(0, 9999)  # of a file, in ten thousandths
some = examples_of(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def bounds(tmp_path):
    """Ends a case that hangs, and fails one that takes much memory."""

    def expired(number, frame):
        for pipe in filter(Path.is_fifo, tmp_path.rglob("*")):
            os.close(os.open(pipe, os.O_RDWR))  # lets go a thread that waits there
        pytest.fail(f"not done after {SECONDS} seconds")  # no Exception: nothing swallows it

    handler, memory = signal.signal(signal.SIGALRM, expired), peak()
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    assert peak() - memory < MEMORY


def peak():
    """The most memory that this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def is_one_sentence(message, named):
    assert str(named) in message
    assert message.endswith(".") and "\n" not in message and not re.search(r"[^.]\. ", message), message
    assert CURE.search(message.replace(str(named), "")), message


@contextlib.contextmanager
def refused(named):
    """A block that must raise an InputError as it should be, which names a file or flag."""
    with pytest.raises(InputError) as caught:
        yield
    is_one_sentence(str(caught.value), named)


def table(cases):
    """A dict as values of a parameter, or tuples of values of several; its keys are their names."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else [case]), id=name) for name, case in cases.items()
    ]


# --- what stands in the place of a file


def content(data):
    return lambda path: path.write_bytes(data)


def part(start, end):
    """From one share of the file to another."""

    def damage(path):
        data = path.read_bytes()
        path.write_bytes(data[int(start * len(data)) : int(end * len(data))])

    return damage


def edit(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new, 1), newline="")


def instead(make):
    """What make makes of the path, without the file or folder."""

    def damage(path):
        gone(path)
        make(path)

    return damage


def gone(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def emptied(folder):
    for file in folder.iterdir():
        file.unlink()


def link_to_itself(path):
    path.symlink_to(path)


def dangling(path):
    path.symlink_to("nowhere")


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows=b"", *, depth=8, extra=b""):
    """A greyscale PNG; rows: each a zero and the numbers, packed."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(width, height):
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(68)


def bmp(width, height):
    whole = encoded(Image.new("RGB", (4, 4)), "BMP")
    return whole[:18] + struct.pack("<ii", width, height) + whole[26:]


def gif(width, height):
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + b"\0\x08\0;"


def jpeg(width, height):
    whole = encoded(Image.new("RGB", (16, 16)), "JPEG")
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def webp(width, height):
    whole = encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True)
    return whole[:21] + struct.pack("<I", (width - 1) | (height - 1) << 14) + whole[25:]


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n{} loop\n"
BLACK = bytes(SIDE * (SIDE + 1))  # rows of a PNG
MEGABYTES = b"a\0\0" + zlib.compress(bytes(2**22))  # of text, or of a colour profile
NO_FILES = {
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a link to itself": instead(link_to_itself),
    "a link to nowhere": instead(dangling),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
}
HUGE = {
    "PNG of 60000x60000": content(png(60000, 60000)),
    "PNG of 2147483647x2147483647": content(png(2**31 - 1, 2**31 - 1)),
    "TIFF of 60000x60000": content(tiff(60000, 60000)),
    "BMP of 60000x60000": content(bmp(60000, 60000)),
    "BMP of 32x-2147483648": content(bmp(32, -(2**31))),
    "GIF of 65535x65535": content(gif(65535, 65535)),
    "JPEG of 65500x65500": content(jpeg(65500, 65500)),
    "PPM of 99999x99999": content(b"P6 99999 99999 255\n"),
}
DAMAGED = {
    "nothing in it": content(b""),
    "text": content(b"not an image at all"),
    "a web page": content(b"<!DOCTYPE html><title>404 Not Found</title>"),
    "a program": content(PROGRAM),
    "an archive": content(b"PK\x05\x06" + bytes(18)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "its first half": part(0, 0.5),
    "its second half": part(0.5, 1),
    "its header": part(0, 0.05),
    "a byte before it": lambda path: path.write_bytes(b"\0" + path.read_bytes()),
    "PNG of 0x0": content(png(0, 0)),
    "PNG of 32x0": content(png(SIDE, 0)),
    "TIFF of 0x0": content(tiff(0, 0)),
    "GIF of 0x0": content(gif(0, 0)),
    "PPM of -1x-1": content(b"P6 -1 -1 255\n"),
    "PNG without pixels": content(png(SIDE, SIDE)),
    "PNG of 9400x9400 without pixels": content(png(9400, 9400)),
    "PNG without its last sum": content(png(SIDE, SIDE, BLACK)[:-16]),
    "PNG with a bomb of text": content(png(SIDE, SIDE, BLACK, extra=chunk(b"zTXt", MEGABYTES))),
    "PNG with a bomb of colours": content(png(SIDE, SIDE, BLACK, extra=chunk(b"iCCP", MEGABYTES))),
    "32-bit integers": content(encoded(Image.new("I", (SIDE, SIDE), 70000), "TIFF")),
    "32-bit fractions": content(encoded(Image.new("F", (SIDE, SIDE), 0.5), "TIFF")),
}
NO_IMAGES = {**NO_FILES, **HUGE, **DAMAGED, "WebP of 16384x16384": content(webp(16384, 16384))}


def noise(seed, *, side=32):
    return np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def flip(path, share, bit):
    data = bytearray(path.read_bytes())
    data[share * len(data) // 10000] ^= 1 << bit
    path.write_bytes(data)


# --- flags


COUNTS = (
    "epochs",
    "batch_size",
    "size",
    "early_stopping_patience",
    "limit",
    "seed",
    "road_tolerance",
    "warmup_steps",
)
NUMBERS = "learning_rate clip_norm checkpoint_every max_bad_share dice ema_decay weight_decay".split()
NO_NUMBERS = ("", "many", "nan", "inf", "-inf", "1e400", "-1", "1" + 30 * "0", "0x", "1,5", "1 2")
FLAGS = [f"--{name}={value}" for name in [*COUNTS, *NUMBERS] for value in NO_NUMBERS]
FLAGS += """
    --epochs=0 --epochs=1.5 --epochs --epoch=3 --noepochs ---epochs=3 -epochs=x epochs=3 - --tile=16
    --batch_size=0 --size=0 --size=100 --size=1000000 --seed=9223372036854775808 --road_tolerance=256
    --learning_rate=0 --learning_rate=1e-400 --max_bad_share=1
    --xla=2 --ema_decay=1 --schedule=linear --augment=blur --augment=flip,,zoom --strategy=parameter_server
    --road_rgb= --road_rgb=1,2 --road_rgb=1,2,3,4 --road_rgb=1,2,256 --road_rgb=red,green,blue
    --precision= --precision=float64 --deterministic=maybe --nodeterministic=1 --tensorboard=2
    --run_dir= --cache_dir= --data_dir= --data_dir=/no/such/folder --data_dir=/dev/null
    --flagfile --flagfile=/no/such.cfg --flagfile=/ --flagfile=/dev/null/x
""".split()
FLAGS.append("--data_dir=" + "x" * 5000)
TOGETHER = ["--xla --deterministic", "--xla --strategy=mirrored", "--data_on_device --strategy=mirrored"]


@pytest.mark.parametrize("argument", FLAGS, ids=lambda argument: argument[:40])
def test_senseless_flags_are_refused(argument):
    with refused(argument.partition("=")[0].lstrip("-") if argument != "-" else "'-'"):
        cli.parse(cityscape_road.define_flags, [argument])


@pytest.mark.parametrize("arguments", TOGETHER)
def test_flags_that_exclude_each_other_are_refused(arguments):
    with refused(arguments.split()[0]):
        cli.parse(cityscape_road.define_flags, arguments.split())


CLUSTERS = {
    "absent": None,
    "no JSON": "worker 0 of 2",
    "a list": "[]",
    "no task": '{"cluster": {"worker": ["a:1", "b:1"]}}',
    "no cluster": '{"task": {"type": "worker", "index": 0}}',
    "an index too large": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
    "an index below 0": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": -1}}',
    "an index as text": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "0"}}',
    "another job": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
    "one address for all": '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
    "no port": '{"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    "a port too large": '{"cluster": {"worker": ["a:99999", "b:1"]}, "task": {"type": "worker", "index": 0}}',
}


@pytest.mark.parametrize("config", CLUSTERS.values(), ids=CLUSTERS)
def test_a_cluster_that_is_none(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with refused("TF_CONFIG"):
        distribution.strategy("multi_worker")


FLAGFILES = {  # what is in it, and what must be named
    "not UTF-8": (b"--epochs=3\n# K\xe4tzchen\n", "some.cfg"),
    "UTF-16": ("--epochs=3\n".encode("utf-16"), "some.cfg"),
    "a picture": (png(4, 4, bytes(20)), "some.cfg"),
    "a byte order mark": (b"\xef\xbb\xbf--epochs=3\n", "--epochs=3"),
    "a word": (b"--epochs=3\nbatch_size=7\n", "batch_size=7"),
    "a shell command": (b"python -m experiments.cityscape_road --epochs=3\n", "python"),
    "an unknown flag": (b"--epochs=3\n--batchsize=7\n", "batchsize"),
    "two flags a line": (b"--epochs=3 --batch_size=7\n", "--epochs"),
    "a flag cut short": (b"--batch_size=7\n--epo", "epo"),
    "a value missing": (b"--batch_size=7\n--epochs=\n", "--epochs"),
    "another file, which is missing": (b"--flagfile=/no/such.cfg\n", "/no/such.cfg"),
    "a zero byte in a path": (b"--flagfile=a\0b\n", "some.cfg"),
    "a zero byte in a folder": (b"--run_dir=a\0b\n", "--run_dir"),
}


@pytest.mark.parametrize("data, named", table(FLAGFILES))
def test_bad_flagfiles_are_refused(tmp_path, data, named):
    (tmp_path / "some.cfg").write_bytes(data)
    with refused(named):
        cli.parse(cityscape_road.define_flags, [f"--flagfile={tmp_path / 'some.cfg'}"])


def test_flagfiles_that_name_each_other_a_thousand_times_are_refused(tmp_path):
    for number in range(1200):
        (tmp_path / f"{number}.cfg").write_text(f"--flagfile={tmp_path / str(number + 1)}.cfg\n")
    with refused(tmp_path / "0.cfg"):
        cli.parse(cityscape_road.define_flags, [f"--flagfile={tmp_path / '0.cfg'}"])


SAME_FLAGFILES = {
    "nothing": (b"", 25),
    "comments": (b"# one\n// two\n", 25),
    "blank lines": (b"\n\n--epochs=3\n\n", 3),
    "CRLF": (b"\r\n--epochs=3\r\n# end\r\n", 3),
    "no end of line": (b"--epochs=3", 3),
    "spaces": (b"  --epochs=3  \n", 3),
    "itself": (b"--epochs=3\n--flagfile=ITSELF\n", 3),
}


@pytest.mark.parametrize("data, epochs", table(SAME_FLAGFILES))
def test_flagfiles_written_otherwise_mean_the_same(tmp_path, data, epochs):
    path = tmp_path / "some.cfg"
    path.write_bytes(data.replace(b"ITSELF", bytes(path)))
    values = cli.parse(cityscape_road.define_flags, [f"--flagfile={path}"])
    assert (values.epochs, values.batch_size, values.size) == (epochs, 5, 128)


# --- run folders


def road(run_dir, *arguments):
    return cli.parse(cityscape_road.define_flags, [f"--run_dir={run_dir}", "--size=32", *arguments])


def claimed(values):
    with run_folder.claim(Path(values.run_dir), "cityscape_road", cityscape_road.define_flags, values):
        pass


def restored(run_dir):
    return restore.restore(SimpleNamespace(run_dir=str(run_dir), checkpoint="last"), article)


@pytest.fixture
def run(tmp_path):
    """A run folder with flags and a checkpoint, of another network."""
    claimed(road(tmp_path / "run"))
    checkpoint.save(tmp_path / "run/checkpoints", ARRAYS, {"epoch": 1})
    return tmp_path / "run"


FLAGS_CFG = {
    **NO_FILES,
    "nothing": content(b""),
    "missing": gone,
    "a picture": content(png(4, 4, bytes(20))),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "no name": edit("# python -m experiments.cityscape_road\n", ""),
    "the name alone": content(b"# python -m experiments.cityscape_road\n"),
    "an unknown name": edit("cityscape_road", "rail"),
    "the name of a verb": edit("cityscape_road", "export"),
    "a name that leads away": edit("cityscape", "../cityscape"),
    "another experiment": edit("cityscape_road", "oxford_pets"),
    "an unknown flag": edit("--size", "--rails=2\n--size"),
    "a flag out of range": edit("--size=32", "--size=33"),
    "a flag without its dashes": edit("--size", "size"),
    "a flag without its value": edit("--size=32", "--size="),
    "a zero byte": edit("run_dir=", "run_dir=\0"),
    "lines lost at the end": lambda path: path.write_text(path.read_text().partition("--seed")[0]),
}


@pytest.mark.parametrize("use", [claimed, restored], ids=["to train", "to restore"])
@pytest.mark.parametrize("damage", table(FLAGS_CFG))
def test_a_damaged_flags_cfg_is_refused(run, damage, use):
    damage(run / "flags.cfg")
    with refused(run):
        use(road(run) if use is claimed else run)


@some
@given(share=SHARES)
def test_a_cut_flags_cfg_is_refused(tmp_path, share):
    values = road(tmp_path / "run")
    claimed(values)
    checkpoint.save(tmp_path / "run/checkpoints", ARRAYS, {"epoch": 1})
    path = tmp_path / "run/flags.cfg"
    whole = path.read_bytes()
    path.write_bytes(whole[: share * (len(whole) - 1) // 10000])  # without more than the last newline
    with refused(tmp_path / "run"):
        claimed(values)
    with refused(tmp_path / "run"):
        restored(tmp_path / "run")
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        edit("\n", "\r\n"),
        edit("--size", "\n  \n# a comment\n--size"),
        part(0, 0.999),
        edit("--warmup_steps=0\n", ""),
    ],
    ids=["CRLF", "blank lines and a comment", "no end of line", "of a version without some flag"],
)
def test_a_flags_cfg_written_otherwise_means_the_same(run, change):
    change(run / "flags.cfg")
    claimed(road(run))
    found = run_folder.read_flags(run, cityscape_road.define_flags)
    assert found.flag_values_dict() == road(run).flag_values_dict()


RUN_DIRS = {
    "a file": Path.touch,
    "in a file": lambda folder: instead(Path.touch)(folder.parent),
    "a loop": link_to_itself,
    "a link to nowhere": lambda folder: folder.symlink_to("no/where"),
    "a pipe": os.mkfifo,
    "checkpoints is a file": lambda folder: (folder.mkdir(), (folder / "checkpoints").touch()),
    "predictions is a file": lambda folder: (folder.mkdir(), (folder / "predictions").touch()),
    "flags.cfg is a folder": lambda folder: (folder / "flags.cfg").mkdir(parents=True),
    "the lock is a folder": lambda folder: (folder / ".lock").mkdir(parents=True),
}


@pytest.mark.parametrize("use", [claimed, restored], ids=["to train", "to restore"])
@pytest.mark.parametrize("make", table(RUN_DIRS))
def test_what_cannot_be_a_run_folder_is_refused(tmp_path, make, use):
    folder = tmp_path / "in" / "run"
    folder.parent.mkdir()
    make(folder)
    with refused(folder):
        use(road(folder) if use is claimed else folder)


# --- checkpoints

ARRAYS = {"conv1": np.arange(6, dtype=np.float32).reshape(2, 3), "adam/iteration": np.array(7)}
GOOD = json.dumps({"arrays": sorted(ARRAYS), "state": {"epoch": 2}})


def archive(*, state=GOOD, **arrays):
    """A checkpoint file by hand: arrays replace or, where None, leave out those that belong there."""
    arrays = {name: array for name, array in (ARRAYS | arrays).items() if array is not None}
    file = io.BytesIO()
    np.savez(file, **({} if state is None else {checkpoint.STATE: np.array(state)}), **arrays)
    return content(file.getvalue())


def bomb():
    """An array of 10**12 numbers by its header."""
    file, header = io.BytesIO(), "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    with zipfile.ZipFile(file, "w") as members:
        header = header.ljust(117).encode() + b"\n"
        members.writestr("conv1.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    return content(file.getvalue())


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return content(file.getvalue())


CHECKPOINTS = {
    **NO_FILES,
    "nothing": content(b""),
    "text": content(b"half a file"),
    "a picture": content(png(4, 4, bytes(20))),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "an empty archive": content(b"PK\x05\x06" + bytes(18)),
    "one array": npy(ARRAYS["conv1"]),
    "a pickle": content(b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os\x94."),
    "a pickled array": archive(conv1=np.array([{"a": 1}], dtype=object)),
    "an array too many": archive(conv2=np.zeros(3)),
    "an array missing": archive(conv1=None),
    "no state": archive(state=None),
    "a state that is no JSON": archive(state="{epoch: 2}"),
    "a state cut short": archive(state=GOOD[:-9]),
    "a list for a state": archive(state=json.dumps([1, 2])),
    "another program's state": archive(state=json.dumps({"format": "other", "version": 1})),
    "a number for the loop's state": archive(state=json.dumps({"arrays": sorted(ARRAYS), "state": 2})),
    "a list for the loop's state": archive(state=json.dumps({"arrays": sorted(ARRAYS), "state": [1]})),
    "no names": archive(state=json.dumps({"arrays": None, "state": {}})),
    "numbers for the state": archive(state=np.arange(3)),
    "an array of terabytes": bomb(),
}


def save_two(folder):
    """last.npz and previous.npz; what the latter holds."""
    folder.mkdir(exist_ok=True)
    for epoch in (1, 2):
        checkpoint.save(folder, {name: array + epoch for name, array in ARRAYS.items()}, {"epoch": epoch})
    return checkpoint.load(folder / "previous.npz")


def same(found, expected):
    return found[1] == expected[1] and all(
        np.array_equal(found[0].pop(name), array) for name, array in expected[0].items()
    )


@pytest.mark.parametrize("damage", table(CHECKPOINTS))
def test_for_a_damaged_checkpoint_the_one_before_is_taken(tmp_path, capsys, damage):
    previous = save_two(tmp_path / "checkpoints")
    last = tmp_path / "checkpoints/last.npz"
    damage(last)
    assert same(checkpoint.load_latest(last.parent, mend=False), previous)
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"warning: {last}: ")
    (last.parent / "previous.npz").unlink()
    with refused(last):
        checkpoint.load_latest(last.parent, mend=False)


@some
@given(share=SHARES)
def test_for_a_cut_checkpoint_the_one_before_is_taken(tmp_path, share):
    previous = save_two(tmp_path / "checkpoints")
    part(0, share / 10000)(tmp_path / "checkpoints/last.npz")
    assert same(checkpoint.load_latest(tmp_path / "checkpoints"), previous)


@some
@given(share=SHARES, bit=st.integers(0, 7))
def test_for_a_flipped_bit_the_one_before_is_taken(tmp_path, share, bit):
    previous = save_two(tmp_path / "checkpoints")
    last = tmp_path / "checkpoints/last.npz"
    whole = checkpoint.load(last)
    flip(last, share, bit)
    found = checkpoint.load_latest(last.parent)
    assert same(found, whole if found[1]["epoch"] == 2 else previous)  # some bits carry nothing


OTHERS = {
    "names": {"conv2": ARRAYS["conv1"], "adam/iteration": ARRAYS["adam/iteration"]},
    "one less": {"conv1": ARRAYS["conv1"]},
    "one more": {**ARRAYS, "conv2": ARRAYS["conv1"]},
    "shapes": {**ARRAYS, "conv1": ARRAYS["conv1"].T},
    "more axes": {**ARRAYS, "conv1": ARRAYS["conv1"][None]},
    "one number for all": {**ARRAYS, "conv1": np.float32(1)},
    "double precision": {**ARRAYS, "conv1": ARRAYS["conv1"].astype(np.float64)},
    "half precision": {**ARRAYS, "conv1": ARRAYS["conv1"].astype(np.float16)},
    "the other byte order": {**ARRAYS, "conv1": ARRAYS["conv1"].astype(">f4")},
    "whole numbers": {**ARRAYS, "conv1": ARRAYS["conv1"].astype(np.int32)},
    "words": {**ARRAYS, "conv1": ARRAYS["conv1"].astype(str)},
    "complex numbers": {**ARRAYS, "conv1": ARRAYS["conv1"].astype(np.complex64)},
    "a fraction for a count": {**ARRAYS, "adam/iteration": np.array(7.5)},
    "nothing": {},
}


@pytest.mark.parametrize("arrays", table(OTHERS))
def test_arrays_of_another_network_are_refused_and_none_is_taken(tmp_path, arrays):
    variables = {name: tf.Variable(tf.zeros_like(array)) for name, array in ARRAYS.items()}
    checkpoint.save(tmp_path, arrays, {"epoch": 1})
    with refused(tmp_path):
        checkpoint.restore(variables, checkpoint.load(tmp_path / "last.npz")[0], tmp_path)
    assert not any(variable.numpy().any() for variable in variables.values())


@pytest.mark.parametrize("use", ["train", "restore"])
def test_another_experiments_checkpoint_is_refused(run, pairs, use):
    values = road(run)
    with refused(run):
        if use == "train":
            loop.run(cityscape_road.experiment(values), cityscape_road.define_flags, values)
        else:
            restored(run)


def test_training_on_pairs_without_road_is_refused(pairs, tmp_path):
    folders = [f"--data_dir={pairs}", f"--cache_dir={tmp_path / 'cache'}"]
    values = road(tmp_path / "run", *folders, "--road_rgb=9,9,9", "--road_tolerance=0")
    with refused("--road_rgb"):
        loop.run(cityscape_road.experiment(values), cityscape_road.define_flags, values)


# --- images to predict


def test_predict_names_each_bad_image_and_does_the_good_ones(tmp_path, capsys):

    def forward(weights, images, **options):
        return images[..., :1] - 127

    experiment = dataclasses.replace(cityscape_road.experiment(road(tmp_path)), forward=forward)
    bad = []
    for number, damage in enumerate((HUGE | DAMAGED).values()):
        bad.append(tmp_path / f"bad{number}.png")
        write(bad[-1], noise(number))
        damage(bad[-1])
    write(tmp_path / "good.png", noise(0))
    done = predict.run(
        experiment,
        {},
        tf.float32,
        [*bad, tmp_path / "good.png", tmp_path / "missing.png"],
        tmp_path / "out",
        resize=None,
        tile=64,
        flip=False,
    )
    assert done == 1
    lines = dict(line.split(": ", 2)[1:] for line in capsys.readouterr().err.splitlines())
    assert lines.keys() == {str(path) for path in [*bad, tmp_path / "missing.png"]}
    for path, reason in lines.items():
        is_one_sentence(f"{path}: {reason}", path)
    labels = np.asarray(Image.open(tmp_path / "out/good_labels.png"))
    np.testing.assert_array_equal(labels, noise(0)[..., 0] > 127)
    assert len(list((tmp_path / "out").glob("*_labels.png"))) == 1


@pytest.mark.parametrize("damage", table(NO_FILES))
def test_a_folder_to_predict_holds_files(tmp_path, damage):
    write(tmp_path / "in/1.png", noise(0))
    damage(tmp_path / "in/1.png")
    with refused(tmp_path / "in/1.png"):
        photos.find([tmp_path / "in"])


# --- from the command line


def test_flags_that_are_not_utf_8(tmp_path):
    with refused("data_dir"):
        cli.parse(cityscape_road.define_flags, [f"--data_dir={tmp_path}/\udcdf"])
    folder = tmp_path / "stra\udcdfe"
    folder.mkdir()
    with refused(folder):
        cli.parse(cityscape_road.define_flags, ["--data_dir", str(folder)])


def test_a_folder_of_any_name_can_be_used_again(tmp_path):
    for _ in range(2):
        claimed(road(tmp_path / "run", f"--cache_dir={tmp_path}/line\u2028feed\x85"))


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "run").touch()
    with refused(tmp_path / "run"):
        claimed(road(tmp_path / "run"))
    long = tmp_path / ("a" * 250)
    with refused(long), files.atomic(long):
        pass


def test_too_little_memory(monkeypatch):
    monkeypatch.setattr("sys.argv", ["test"])
    for allocate in (lambda flags: tf.zeros([2**47]), lambda flags: np.zeros(2**47)):
        with pytest.raises(SystemExit) as ended:
            cli.main(lambda values: None, allocate)
        is_one_sentence(str(ended.value), "--batch_size")


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError, tf.errors.InternalError])
def test_images_that_do_not_fit_into_the_device(tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error(None, None, "Dst tensor is not initialized.")

    examples = decoded(tmp_path, np.zeros([2, 4, 4, 3], np.uint8), np.zeros([2, 4, 4], np.uint8))
    monkeypatch.setattr(tf, "Variable", full)
    with pytest.raises(InputError, match=f"{tmp_path}: .*; leave --data_on_device out"):
        resident.make_training(examples, 1, seed=0)


@pytest.mark.parametrize("state", [None, {"x": 1}, {"epoch": "1"}, {"epoch": -1}, {"history": [{}]}], ids=str)
def test_a_state_that_is_none_of_a_training(tmp_path, state):
    values = road(tmp_path / "run")
    claimed(values)
    experiment = cityscape_road.experiment(values)
    weights = experiment.init_weights(seed=0)
    arrays = {name: variable.numpy() for name, variable in (weights | adam.init_slots(weights)).items()}
    whole = dataclasses.asdict(loop.State()) | state if state else {}
    checkpoint.save(tmp_path / "run" / "checkpoints", arrays, whole)
    with refused(tmp_path / "run"):
        loop.run(experiment, cityscape_road.define_flags, values)
