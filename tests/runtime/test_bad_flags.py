"""Bad flags, flagfiles and cluster settings are refused in one sentence that names them."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import assert_one_sentence, refused
from damage import png

from core.runtime import cli, distribution
from experiments import cityscape_road

pytestmark = pytest.mark.usefixtures("limits")
NUMERIC = """
    epochs batch_size size early_stopping_patience limit seed road_tolerance warmup_steps
    learning_rate clip_norm checkpoint_every max_bad_share dice ema_decay weight_decay
""".split()
NOT_NUMBERS = ("", "many", "nan", "inf", "-1", "1e400", "1" + 30 * "0", "1,5")
BAD_ARGUMENTS = """
    --epochs=0 --epochs=1.5 --epochs --epoch=3 --noepochs ---epochs=3 -epochs=x epochs=3 - --tile=16
    --batch_size=0 --size=0 --size=100 --size=1000000 --seed=9223372036854775808 --road_tolerance=256
    --learning_rate=0 --learning_rate=1e-400 --max_bad_share=1 --xla=2 --ema_decay=1
    --schedule=linear --augment=blur --augment=flip,,zoom --strategy=parameter_server
    --road_rgb= --road_rgb=1,2 --road_rgb=1,2,3,4 --road_rgb=1,2,256 --road_rgb=red,green,blue
    --precision= --precision=float64 --deterministic=maybe --nodeterministic=1
    --run_dir= --cache_dir= --data_dir= --data_dir=/no/such/folder --data_dir=/dev/null
    --flagfile --flagfile=/no/such.cfg --flagfile=/ --flagfile= --init_from= --run_dir=~/runs
""".split()
BAD_ARGUMENTS += ["--data_dir=" + "x" * 5000, "--cache_dir=two\nlines"]


@pytest.mark.parametrize("name", NUMERIC)
def test_numeric_flags_refuse_invalid_values(name):
    for value in NOT_NUMBERS:
        with refused(name):
            cli.parse(cityscape_road.define_flags, [f"--{name}={value}"])


@pytest.mark.parametrize("argument", BAD_ARGUMENTS, ids=lambda argument: argument[:40])
def test_bad_arguments_are_refused(argument):
    with refused(argument.partition("=")[0].lstrip("-") or "'-'"):
        cli.parse(cityscape_road.define_flags, [argument])


@pytest.mark.parametrize(
    "arguments",
    ["--xla --deterministic", "--xla --strategy=mirrored", "--data_on_device --strategy=mirrored"],
)
def test_flags_that_exclude_each_other_are_refused(arguments):
    with refused(arguments.split()[0]):
        cli.parse(cityscape_road.define_flags, arguments.split())


def test_a_flag_after_a_missing_value_is_not_taken_for_the_value():
    with refused("--run_dir: the value is missing"):
        cli.parse(cityscape_road.define_flags, ["--run_dir", "--epochs=3"])
    flags = cli.parse(cityscape_road.define_flags, ["--xla", "--run_dir=--odd", "--run_dir", "runs/a"])
    assert flags.xla and flags.run_dir == "runs/a"


def test_an_empty_argument_is_refused():
    with refused("argument: is empty"):
        cli.read(cli.parse(cityscape_road.define_flags), ["predict", "a.png", ""], arguments=True)


def test_a_correct_flagfile_is_not_blamed(tmp_path):
    (tmp_path / "some.cfg").write_text("--epochs=3\n")
    for argument in ("--noxla=1", "--epochs=x", "--no_such=1"):
        with refused(argument.partition("=")[0].lstrip("-")) as caught:
            cli.parse(cityscape_road.define_flags, [f"--flagfile={tmp_path / 'some.cfg'}", argument])
        assert "some.cfg" not in str(caught.value)


def test_a_bad_flag_ends_a_command_with_one_line(exit_message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["test", "--no_such_flag=1"])
    assert_one_sentence(exit_message(print), "no_such_flag")


def test_arguments_that_are_not_utf_8_are_refused(tmp_path):
    folder = tmp_path / "stra\udcdfe"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    with refused(folder):
        cli.parse(cityscape_road.define_flags, ["--data_dir", str(folder)])


def task(kind="worker", index=0, workers=("a:1", "b:1")):
    return {"cluster": {"worker": workers}, "task": {"type": kind, "index": index}}


def job(kind, addresses):
    return {"cluster": {kind: addresses, "worker": ["c:1"]}, "task": {"type": kind, "index": 0}}


CLUSTERS = {
    "absent": None,
    "not JSON": "worker 0 of 2",
    "a list": [],
    "no task": {"cluster": {"worker": ["a:1", "b:1"]}},
    "no cluster": {"task": {"type": "worker", "index": 0}},
    "an index too large": task(index=2),
    "an index below 0": task(index=-1),
    "an index as text": task(index="0"),
    "another job": task("ps"),
    "one address for all": task(workers="a:1"),
    "no port": task(workers=["a", "b:1"]),
    "a port too large": task(workers=["a:99999", "b:1"]),
    **{f"a job {kind}": job(kind, ["a:1"]) for kind in ("master", "ps", "evaluator")},
    "two chiefs": job("chief", ["a:1", "b:1"]),
}


@pytest.mark.parametrize("config", CLUSTERS.values(), ids=CLUSTERS)
def test_a_bad_cluster_configuration_is_refused(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with refused("TF_CONFIG"):
        distribution.strategy("multi_worker")


FLAGFILES = {  # name -> (content of the flagfile, text that the message must contain)
    "Latin 1": (b"--epochs=3\n# K\xe4tzchen\n", "some.cfg"),
    "a PNG": (png(4, 4, bytes(20)), "some.cfg"),
    "a byte order mark": (b"\xef\xbb\xbf--epochs=3\n", "--epochs=3"),
    "a flag without dashes": (b"--epochs=3\nbatch_size=7\n", "batch_size=7"),
    "an unknown flag": (b"--epochs=3\n--batchsize=7\n", "some.cfg: Unknown command line flag 'batchsize'"),
    "two flags on a line": (b"--epochs=3 --batch_size=7\n", "--epochs"),
    "a name cut short": (b"--batch_size=7\n--epo", "epo"),
    "a value missing": (b"--batch_size=7\n--epochs=\n", "--epochs"),
    "a missing flagfile": (b"--flagfile=/no/such.cfg\n", "/no/such.cfg"),
    "a zero byte in a flagfile's name": (b"--flagfile=a\0b\n", "some.cfg"),
    "a zero byte in a folder's name": (b"--run_dir=a\0b\n", "--run_dir"),
}
VALID_FLAGFILES = {  # name -> (content, the number of epochs that it sets); 25 is the default
    "empty": (b"", 25),
    "comments": (b"# one\n// two\n", 25),
    "CRLF and blank lines": (b"\r\n--epochs=3\r\n\r\n# end\r\n", 3),
    "no final line end": (b"  --epochs=3  ", 3),
    "its own name": (b"--epochs=3\n--flagfile=ITSELF\n", 3),
}


@pytest.mark.parametrize("data, named", FLAGFILES.values(), ids=FLAGFILES)
def test_bad_flagfiles_are_refused(tmp_path, data, named):
    (tmp_path / "some.cfg").write_bytes(data)
    with refused(named):
        cli.parse(cityscape_road.define_flags, [f"--flagfile={tmp_path / 'some.cfg'}"])


@pytest.mark.parametrize("data, epochs", VALID_FLAGFILES.values(), ids=VALID_FLAGFILES)
def test_unusual_flagfiles_are_read(tmp_path, data, epochs):
    path = tmp_path / "some.cfg"
    path.write_bytes(data.replace(b"ITSELF", bytes(path)))
    values = cli.parse(cityscape_road.define_flags, [f"--flagfile={path}"])
    assert (values.epochs, values.batch_size, values.size) == (epochs, 5, 128)


def test_endless_chains_of_flagfiles_are_refused(tmp_path):
    for number in range(1200):
        (tmp_path / f"{number}.cfg").write_text(f"--flagfile={tmp_path / str(number + 1)}.cfg\n")
    with refused(tmp_path / "0.cfg"):
        cli.parse(cityscape_road.define_flags, [f"--flagfile={tmp_path / '0.cfg'}"])


def device_is_full(values):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def copy_fails(values):
    message = (
        "Failed copying input tensor to GPU:0 in order to run _EagerConst: Dst tensor is not initialized."
    )
    raise tf.errors.InternalError(None, None, message)


def array_is_too_large(values):
    np.zeros(2**47)


@pytest.mark.parametrize("run", [device_is_full, copy_fails, array_is_too_large])
def test_out_of_memory_is_reported_with_its_cure(exit_message, run):
    assert_one_sentence(exit_message(run), "--batch_size")
