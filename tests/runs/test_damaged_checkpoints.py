"""A damaged checkpoint is replaced by the previous one; arrays of another network are refused."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import refused
from damage import NOT_FILES, overwrite, png

from core.runs import checkpoint

pytestmark = pytest.mark.usefixtures("limits")
ARRAYS = {"conv1": np.arange(6, dtype=np.float32).reshape(2, 3), "adam/iteration": np.array(7)}
NAMES = sorted(ARRAYS)
STATE = json.dumps({"arrays": NAMES, "state": {"epoch": 2}})


def archive(state=STATE, **arrays):
    """Return a function (path) that writes a checkpoint with this state and with ARRAYS.

    arrays: name -> array; they replace or extend ARRAYS. A state or array of None is left out.
    """
    members = {checkpoint.STATE: None if state is None else np.array(state), **ARRAYS, **arrays}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in members.items() if array is not None})
    return overwrite(file.getvalue())


def archive_with_loop_state(state):
    return archive(json.dumps({"arrays": NAMES, "state": state}))


def archive_of_terabytes():
    """Return a function (path) that writes an archive with one array. Its header claims 10**12 numbers."""
    file, header = io.BytesIO(), "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    with zipfile.ZipFile(file, "w") as members:
        header = header.ljust(117).encode() + b"\n"
        members.writestr("conv1.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    return overwrite(file.getvalue())


def single_array(path):
    with open(path, "wb") as file:
        np.save(file, ARRAYS["conv1"])


DAMAGES = {
    **NOT_FILES,
    "empty": overwrite(b""),
    "text": overwrite(b"half a file"),
    "a PNG": overwrite(png(4, 4, bytes(20))),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "an empty archive": overwrite(b"PK\x05\x06" + bytes(18)),
    "one array without an archive": single_array,
    "a pickle": overwrite(b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os\x94."),
    "a pickled array": archive(conv1=np.array([{"a": 1}], dtype=object)),
    "an additional array": archive(conv2=np.zeros(3)),
    "a missing array": archive(conv1=None),
    "no state": archive(None),
    "a state that is not JSON": archive("{epoch: 2}"),
    "a state cut short": archive(STATE[:-9]),
    "a state that is a list": archive("[1, 2]"),
    "a state of another program": archive(json.dumps({"format": "other", "version": 1})),
    "a state without names": archive(json.dumps({"arrays": None, "state": {}})),
    "a state of numbers": archive(np.arange(3)),
    "a loop state that is a number": archive_with_loop_state(2),
    "a loop state that is a list": archive_with_loop_state([1]),
    "an array of terabytes": archive_of_terabytes(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_previous_checkpoint_is_loaded_instead_of_a_damaged_one(tmp_path, capsys, damage):
    for epoch in (1, 2):
        arrays = {name: array + epoch for name, array in ARRAYS.items()}
        checkpoint.save(tmp_path, arrays, {"epoch": epoch})
    damage(tmp_path / "last.npz")
    arrays, state = checkpoint.load_latest(tmp_path, mend=False)
    assert state == {"epoch": 1} and sorted(arrays) == NAMES
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name] + 1)
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"warning: {tmp_path / 'last.npz'}: ")
    (tmp_path / "previous.npz").unlink()
    with refused(tmp_path / "last.npz"):
        checkpoint.load_latest(tmp_path, mend=False)


CONV1 = ARRAYS["conv1"]
OTHER_ARRAYS = {
    "no arrays": {},
    "another name": {"conv2": CONV1, "adam/iteration": ARRAYS["adam/iteration"]},
    "one array less": {"conv1": CONV1},
    "one array more": {**ARRAYS, "conv2": CONV1},
    "a fraction as iteration": {**ARRAYS, "adam/iteration": np.array(7.5)},
} | {
    name: {**ARRAYS, "conv1": array}
    for name, array in {
        "another shape": CONV1.T,
        "another rank": CONV1[None],
        "a scalar": np.float32(1),
        "float64": CONV1.astype(np.float64),
        "float16": CONV1.astype(np.float16),
        "big-endian": CONV1.astype(">f4"),
        "integers": CONV1.astype(np.int32),
        "text": CONV1.astype(str),
    }.items()
}


@pytest.mark.parametrize("arrays", OTHER_ARRAYS.values(), ids=OTHER_ARRAYS)
def test_arrays_of_another_network_are_refused_and_no_variable_changes(tmp_path, arrays):
    variables = {name: tf.Variable(tf.zeros_like(array)) for name, array in ARRAYS.items()}
    checkpoint.save(tmp_path, arrays, {"epoch": 1})
    with refused(tmp_path):
        checkpoint.restore(variables, checkpoint.load(tmp_path / "last.npz")[0], tmp_path)
    assert not any(variable.numpy().any() for variable in variables.values())
