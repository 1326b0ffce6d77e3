"""Checkpoints: one file with everything that a run needs to continue.

A checkpoint is a NumPy `.npz` archive: one array per variable, and the state of the training loop as
JSON, with the names of the arrays. The archive holds a CRC-32 of every member, which is verified when
the file is read. Nothing is pickled.
"""

import json
import os
import shutil
import zipfile

import numpy as np

from core.runtime import files
from core.runtime.errors import InputError

STATE = "state.json"
AVERAGE = "average/"  # prefix of the averaged weights' names
OPTIMIZER = ("adam/", "scaling/")  # prefixes of the optimizer's variables


def save(folder, arrays, state):
    """Write arrays (name -> ndarray) and state (JSON values) as `folder/last.npz`.

    The old `last.npz` becomes `previous.npz`. If the process is killed, every file is complete.
    """
    with files.atomic(folder / "last.npz") as file:
        text = json.dumps({"state": state, "arrays": sorted(arrays)})
        np.savez(file, **{STATE: np.array(text)}, **arrays)
        if (folder / "last.npz").exists():
            keep(folder, "previous")


def keep(folder, name, source="last"):
    """Hard-link, or copy, `folder/SOURCE.npz` to `folder/NAME.npz`."""
    source, fresh = folder / f"{source}.npz", folder / f".{name}.npz.partial"
    with files.writing(folder / f"{name}.npz"):
        fresh.unlink(missing_ok=True)
        try:
            os.link(source, fresh)  # a second name for the same data, which takes no space
        except OSError:  # some file systems do not have hard links
            shutil.copyfile(source, fresh)
        os.replace(fresh, folder / f"{name}.npz")
        # os.replace does nothing if both names already are hard links of one file
        fresh.unlink(missing_ok=True)


def load(path):
    """Return (arrays, state) of a checkpoint.

    Raises InputError if the file is missing or damaged, and OSError if the disk fails or the user may
    not read the file.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: no such checkpoint; continue the training, or restore the file from a copy."
        )
    try:
        zipfile.ZipFile(path).close()  # np.load treats a file that is not a zip archive as a pickle
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        saved = json.loads(str(arrays.pop(STATE)))
        if saved["arrays"] != sorted(arrays) or not isinstance(saved["state"], dict):
            raise ValueError("arrays or state are missing")
        return arrays, saved["state"]
    except Exception as error:  # zipfile, zlib and NumPy raise different exceptions for damaged files
        if getattr(error, "errno", None) in files.PASSING:
            raise
        raise InputError(
            f"{path}: damaged checkpoint ({error}); restore it from a copy or delete it."
        ) from None


def load_latest(folder, *, mend=True):
    """Return (arrays, state) of the newest undamaged checkpoint, or None if there is no checkpoint yet.

    If `last.npz` is missing or damaged, a warning names it and `previous.npz` is loaded; if mend is True,
    `last.npz` is also replaced by `previous.npz`. Raises InputError if all checkpoints are damaged.
    """
    last, previous = folder / "last.npz", folder / "previous.npz"
    if not os.path.lexists(previous):
        return load(last) if os.path.lexists(last) else None
    try:
        return load(last)
    except InputError as error:
        print(f"warning: {error} The run continues from {previous}.")
        whole = load(previous)
        if mend:
            keep(folder, "last", source="previous")
        return whole


def prediction_variables(variables):
    """Return the variables used for predictions, NAME -> value.

    variables: all variables of a training, or all arrays of a checkpoint, by name. Returns the
    averaged weights if there are any, otherwise the weights.
    """
    averages = {
        name.removeprefix(AVERAGE): value for name, value in variables.items() if name.startswith(AVERAGE)
    }
    return averages or {name: value for name, value in variables.items() if not name.startswith(OPTIMIZER)}


def restore(variables, arrays, folder):
    """Assign arrays to the variables with the same names.

    Raises InputError that names the variables whose names, shapes or dtypes differ.
    """
    expected = {
        (name, *variable.shape, np.dtype(variable.dtype.as_numpy_dtype))
        for name, variable in variables.items()
    }
    found = {(name, *array.shape, array.dtype) for name, array in arrays.items()}
    differing = sorted({name for name, *_ in expected ^ found})
    if differing:
        raise InputError(
            f"{folder}: the checkpoint belongs to another network; use a checkpoint of this network;"
            f" differing variables: {', '.join(differing[:8])}{' ...' if len(differing) > 8 else ''}."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
