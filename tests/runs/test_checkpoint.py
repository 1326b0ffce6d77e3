"""Checkpoints are complete and verified; a damaged one is named and the previous one is loaded."""

import errno
import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from core.runs import checkpoint
from core.runtime.errors import InputError

ARRAYS = {"down0/conv1": np.arange(6, dtype=np.float32).reshape(2, 3), "adam/iteration": np.int64(7)}
STATE = {"epoch": 3, "history": [{"val_iou": float("nan")}]}


def test_a_saved_checkpoint_loads_unchanged(tmp_path):
    checkpoint.save(tmp_path, ARRAYS, STATE)
    arrays, state = checkpoint.load(tmp_path / "last.npz")
    assert arrays.keys() == ARRAYS.keys() and str(state) == str(STATE)  # NaN equals no number
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_kept_checkpoint_does_not_change_when_later_ones_are_saved(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError("not here")))
    checkpoint.save(tmp_path, ARRAYS, {"epoch": 1})
    checkpoint.keep(tmp_path, "best")
    for epoch in (2, 3):
        checkpoint.save(tmp_path, ARRAYS, {"epoch": epoch})
    found = {path.stem: checkpoint.load(path)[1]["epoch"] for path in tmp_path.glob("[!.]*")}
    assert found == {"best": 1, "previous": 2, "last": 3}
    assert len(list(tmp_path.iterdir())) == 3


def test_flipped_bits_and_truncations_are_detected_or_harmless(tmp_path):
    checkpoint.save(tmp_path, ARRAYS, STATE)
    path = tmp_path / "last.npz"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            arrays, state = checkpoint.load(path)
        except InputError as error:
            assert "last.npz" in str(error)
        else:  # a bit that does not matter, for example of a time stamp
            assert state["epoch"] == 3 and arrays.keys() == ARRAYS.keys()
            assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="last.npz"):
            checkpoint.load(path)


def test_the_previous_checkpoint_is_loaded_if_the_last_is_damaged(tmp_path, capsys):
    assert checkpoint.load_latest(tmp_path) is None
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, ARRAYS, {"epoch": epoch})
    assert checkpoint.load_latest(tmp_path)[1] == {"epoch": 3}
    (tmp_path / "last.npz").write_bytes(b"half a file")
    assert checkpoint.load_latest(tmp_path)[1] == {"epoch": 2}
    assert "last.npz" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "last.npz")[1] == {"epoch": 2}  # the damaged file has been replaced
    (tmp_path / "last.npz").unlink()
    assert checkpoint.load_latest(tmp_path)[1] == checkpoint.load(tmp_path / "last.npz")[1] == {"epoch": 2}
    for name in ("last", "previous"):
        (tmp_path / f"{name}.npz").write_bytes(b"")
    with pytest.raises(InputError, match="previous.npz"):
        checkpoint.load_latest(tmp_path)


@pytest.mark.parametrize("reader", [(np, "load"), (zipfile, "ZipFile")])
def test_a_disk_error_does_not_damage_checkpoints(tmp_path, monkeypatch, reader):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    for epoch in (1, 2):
        checkpoint.save(tmp_path, ARRAYS, {"epoch": epoch})
    monkeypatch.setattr(*reader, fail)
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.load_latest(tmp_path)
    monkeypatch.undo()
    assert checkpoint.load_latest(tmp_path)[1] == {"epoch": 2}


def test_keeping_a_checkpoint_twice_leaves_no_other_file(tmp_path):
    checkpoint.save(tmp_path, ARRAYS, {"epoch": 1})
    for _ in range(2):
        checkpoint.keep(tmp_path, "best")
        assert {path.name for path in tmp_path.iterdir()} == {"last.npz", "best.npz"}


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, ARRAYS, {"epoch": 1})

    def fail(file, **arrays):
        file.write(b"some bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(InputError, match="last.npz: .*No space"):
        checkpoint.save(tmp_path, ARRAYS, {"epoch": 2})
    assert not list(tmp_path.glob(".*"))
    assert checkpoint.load_latest(tmp_path)[1] == {"epoch": 1}


def test_a_checkpoint_of_another_network_names_the_differing_variables(tmp_path):
    variables = {"down0/conv1": tf.Variable(tf.zeros([2, 4])), "up0/conv1": tf.Variable(0.0)}
    with pytest.raises(InputError, match="down0/conv1, up0/conv1, adam/iteration"):
        checkpoint.restore(variables, ARRAYS, tmp_path)
