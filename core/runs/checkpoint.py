"""Checkpoints: one file holds all that a run goes on from, whole and checked.

A checkpoint is a NumPy `.npz` archive: an array for each variable, and the state
of the loop as JSON, with the names of the arrays. The archive keeps a CRC-32 of
every member, which reading verifies; nothing is pickled.
"""

import json
import os
import shutil
import zipfile

import numpy as np

from core.runtime import files
from core.runtime.errors import InputError

STATE = "state.json"


def save(folder, arrays, state):
    """Write arrays (name -> ndarray) and state (JSON values) as `folder/last.npz`.

    What was `last.npz` is `previous.npz` then. A process that dies in here leaves
    whole files: the old ones or the new.
    """
    with files.atomic(folder / "last.npz") as file:
        text = json.dumps({"state": state, "arrays": sorted(arrays)})
        np.savez(file, **{STATE: np.array(text)}, **arrays)
        if (folder / "last.npz").exists():
            keep(folder, "previous")


def keep(folder, name, source="last"):
    """Let `folder/NAME.npz` be what `folder/SOURCE.npz` is now, whatever that becomes."""
    source, fresh = folder / f"{source}.npz", folder / f".{name}.npz.partial"
    with files.writing(folder / f"{name}.npz"):
        fresh.unlink(missing_ok=True)
        try:
            os.link(source, fresh)  # a second name: nothing is written
        except OSError:  # not every file system has those
            shutil.copyfile(source, fresh)
        os.replace(fresh, folder / f"{name}.npz")
        fresh.unlink(missing_ok=True)  # where both were names of one file, replacing does nothing


def load(path):
    """(arrays, state) of a checkpoint.

    Raises InputError if it is missing or damaged, OSError where the disk fails or
    the file may not be read.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint; train on, or restore it from a copy.")
    try:
        zipfile.ZipFile(path).close()  # what is none, NumPy takes for a pickle
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        saved = json.loads(str(arrays.pop(STATE)))
        if saved["arrays"] != sorted(arrays) or not isinstance(saved["state"], dict):
            raise ValueError("arrays or state are missing")
        return arrays, saved["state"]
    except Exception as error:  # zip, zlib and NumPy each have their own for damage
        if getattr(error, "errno", None) in files.PASSING:
            raise
        raise InputError(
            f"{path}: damaged checkpoint ({error}); restore it from a copy or delete it."
        ) from None


def load_latest(folder, *, mend=True):
    """(arrays, state) of the newest whole checkpoint, or None where there is none yet.

    A missing or damaged `last.npz` is named in a warning line, and `previous.npz`
    loaded; where this process may mend, it takes the other's place. Raises
    InputError if there are checkpoints and none is whole.
    """
    last, previous = folder / "last.npz", folder / "previous.npz"
    if not os.path.lexists(previous):
        return load(last) if os.path.lexists(last) else None
    try:
        return load(last)
    except InputError as error:
        print(f"warning: {error} Going on from {previous}.")
        whole = load(previous)
        if mend:
            keep(folder, "last", source="previous")
        return whole


def restore(variables, arrays, folder):
    """Assign arrays to the variables of the same names.

    Raises InputError that names what differs if the names, shapes or types do.
    """
    expected = {
        (name, *variable.shape, np.dtype(variable.dtype.as_numpy_dtype))
        for name, variable in variables.items()
    }
    found = {(name, *array.shape, array.dtype) for name, array in arrays.items()}
    differing = sorted({name for name, *_ in expected ^ found})
    if differing:
        raise InputError(
            f"{folder}: the checkpoint is of another network, take one of this; differing variables:"
            f" {', '.join(differing[:8])}{' ...' if len(differing) > 8 else ''}."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
