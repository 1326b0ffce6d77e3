"""Save and load checkpoints. A checkpoint is one file with everything that a run needs to continue.

The file is a NumPy `.npz` archive, which is a zip file of arrays. One array per variable holds the value of
the variable. One more array holds a JSON text with the state of the training loop and the names of the other
arrays. The archive stores a CRC-32 of each array, which is verified when the array is read. Nothing is
pickled.
"""

import json
import os
import shutil

import numpy as np

from core.runtime import files
from core.runtime.errors import InputError

STATE = "state.json"  # name of the array with the JSON text
AVERAGE = "average/"  # the names of the weights' moving averages (--ema_decay) begin with this
OPTIMIZER = ("adam/", "scaling/")  # the names of the optimizer's variables begin with one of these


def save(folder, arrays, state):
    """Write a checkpoint to `folder/last.npz`. The old `last.npz` becomes `previous.npz`.

    arrays: dict, name of a variable -> ndarray. state: dict of JSON values, the state of the training loop.
    Even if the process is killed, `last.npz` and `previous.npz` never hold half-written data.
    """
    with files.atomic(folder / "last.npz") as file:
        text = json.dumps({"state": state, "arrays": sorted(arrays)})
        np.savez(file, **{STATE: np.array(text)}, **arrays)
        if (folder / "last.npz").exists():
            keep(folder, "previous")


def keep(folder, name, source="last"):
    """Make {name}.npz a hard link to {source}.npz in the same folder. An existing {name}.npz is replaced.

    If the file system does not support hard links, {name}.npz becomes a copy of {source}.npz.
    """
    source, fresh = folder / f"{source}.npz", folder / f".{name}.npz.partial"
    with files.writing(folder / f"{name}.npz"):
        fresh.unlink(missing_ok=True)
        try:
            os.link(source, fresh)  # a hard link is a second name for the same data and takes no space
        except OSError:  # some file systems do not support hard links
            shutil.copyfile(source, fresh)
        os.replace(fresh, folder / f"{name}.npz")
        # os.replace does not remove `fresh` if {name}.npz was a hard link to the same data already
        fresh.unlink(missing_ok=True)


def load(path):
    """Read a checkpoint file and return (arrays, state) with the contents that were passed to `save`.

    Raises InputError if the file is missing or damaged. Raises OSError if the disk fails, or if the user has
    no permission to read the file.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: no such checkpoint; continue the training, or restore the file from a copy."
        )
    arrays = files.read_arrays(path, (STATE,))
    try:
        saved = json.loads(str(arrays.pop(STATE)))
        if saved["arrays"] != sorted(arrays) or not isinstance(saved["state"], dict):
            raise ValueError("arrays or state are missing")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); restore it from a copy or delete it.") from None
    return arrays, saved["state"]


def load_latest(folder, *, mend=True):
    """Load `last.npz`, or else `previous.npz`; return (arrays, state) as `load` does.

    Returns None if neither file exists. If `last.npz` is damaged, or missing although `previous.npz` exists,
    prints a warning and loads `previous.npz`. In this case, if mend is True, also replaces `last.npz` by
    `previous.npz`.

    folder: the folder of the checkpoints. Raises InputError if neither file can be loaded.
    """
    last, previous = folder / "last.npz", folder / "previous.npz"
    if not os.path.lexists(previous):
        return load(last) if os.path.lexists(last) else None
    try:
        return load(last)
    except InputError:
        whole = load(previous)
        fault = "damaged" if os.path.lexists(last) else "missing"
        print(f"warning: {last}: {fault}; the run continues from {previous}.")
        if mend:
            keep(folder, "last", source="previous")
        return whole


def image_checksums(state):
    """Return the checksums of a run's training and validation images and masks, as text; "" if unknown.

    state: the state of a training from a checkpoint, as `load` returns it.
    """
    return ", ".join(f"{checksum:08x}" for checksum in state["data"])


def prediction_variables(variables):
    """Return the weights that predictions use, a dict: name -> value.

    variables: dict, name -> value, of all variables of a training or of all arrays of a checkpoint. If it
    contains moving averages of the weights, the averages are returned, and the prefix AVERAGE is removed from
    their names. Otherwise all values are returned except those of the optimizer's variables.
    """
    averages = {
        name.removeprefix(AVERAGE): value for name, value in variables.items() if name.startswith(AVERAGE)
    }
    return averages or {name: value for name, value in variables.items() if not name.startswith(OPTIMIZER)}


def restore(variables, arrays, folder):
    """Assign each array of a checkpoint to the variable of the same name.

    variables: name -> `tf.Variable`. arrays: name -> ndarray. folder: the path that an error message names.
    Raises InputError unless `variables` and `arrays` have the same names, and each array has the shape and
    the dtype of its variable.
    """
    expected = {
        (name, *variable.shape, np.dtype(variable.dtype.as_numpy_dtype))
        for name, variable in variables.items()
    }
    found = {(name, *array.shape, array.dtype) for name, array in arrays.items()}
    names = {name for name, *_ in expected ^ found}
    differing = sorted(names, key=lambda name: (name.startswith((AVERAGE, *OPTIMIZER)), name))
    if differing:
        raise InputError(
            f"{folder}: the checkpoint belongs to another network, because these variables differ:"
            f" {', '.join(differing[:8])}{' ...' if len(differing) > 8 else ''}; restore the code that"
            " trained the checkpoint, or train the present network in a new --run_dir without --init_from."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
