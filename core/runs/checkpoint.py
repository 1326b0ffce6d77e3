"""Save and load checkpoints. A checkpoint is one file with everything that a run needs to continue.

The file is a NumPy `.npz` archive, which is a zip file of arrays. It holds one array per variable, and JSON
text with the state of the training loop and the names of all arrays. The archive stores a CRC-32 of every
member, which is verified when the member is read. Nothing is pickled.
"""

import json
import os
import shutil

import numpy as np

from core.runtime import files
from core.runtime.errors import InputError

STATE = "state.json"  # name, in the archive, of the JSON text with the state of the training loop
AVERAGE = "average/"  # prefix of the names of the averaged weights (--ema_decay)
OPTIMIZER = ("adam/", "scaling/")  # prefixes of the names of the optimizer's variables


def save(folder, arrays, state):
    """Write a checkpoint to `folder/last.npz`. The old `last.npz` becomes `previous.npz`.

    arrays: name -> ndarray, one for each variable. state: a dict of JSON values, the state of the training
    loop. Even if the process is killed, `last.npz` and `previous.npz` never hold half-written data.
    """
    with files.atomic(folder / "last.npz") as file:
        text = json.dumps({"state": state, "arrays": sorted(arrays)})
        np.savez(file, **{STATE: np.array(text)}, **arrays)
        if (folder / "last.npz").exists():
            keep(folder, "previous")


def keep(folder, name, source="last"):
    """Make {name}.npz a hard link to {source}.npz in the same folder, or a copy if links are impossible.

    An existing file {name}.npz is replaced.
    """
    source, fresh = folder / f"{source}.npz", folder / f".{name}.npz.partial"
    with files.writing(folder / f"{name}.npz"):
        fresh.unlink(missing_ok=True)
        try:
            os.link(source, fresh)  # a hard link is a second name for the same data and takes no space
        except OSError:  # some file systems do not support hard links
            shutil.copyfile(source, fresh)
        os.replace(fresh, folder / f"{name}.npz")
        # os.replace leaves `fresh` in place if it and the target already are hard links of one file
        fresh.unlink(missing_ok=True)


def load(path):
    """Read a checkpoint file and return (arrays, state), as passed to `save`.

    Raises InputError if the file is missing or damaged, and OSError if the disk fails or the user may
    not read the file.
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
    """Load the newest undamaged checkpoint of a run; return (arrays, state), as passed to `save`.

    Returns None if there is no checkpoint yet. If `last.npz` is missing or damaged, prints a warning and
    loads `previous.npz`. If mend is True, `last.npz` is then replaced by `previous.npz`.
    folder: the folder of the checkpoints. Raises InputError if no checkpoint can be loaded.
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
    """Return the weights that predictions use, name -> value.

    variables: name -> value: all variables of a training, or all arrays of a checkpoint. If they contain
    averaged weights, these are returned, without the prefix AVERAGE in their names. Otherwise the weights
    themselves are returned, which are all variables except the optimizer's.
    """
    averages = {
        name.removeprefix(AVERAGE): value for name, value in variables.items() if name.startswith(AVERAGE)
    }
    return averages or {name: value for name, value in variables.items() if not name.startswith(OPTIMIZER)}


def restore(variables, arrays, folder):
    """Assign each array of a checkpoint to the variable of the same name.

    variables: name -> `tf.Variable`. arrays: name -> ndarray. folder: the path to name in an error message.
    Raises InputError unless both have the same names, and the same shape and dtype for each name.
    """
    expected = {
        (name, *variable.shape, np.dtype(variable.dtype.as_numpy_dtype))
        for name, variable in variables.items()
    }
    found = {(name, *array.shape, array.dtype) for name, array in arrays.items()}
    differing = sorted({name for name, *_ in expected ^ found})
    if differing:
        raise InputError(
            f"{folder}: the checkpoint belongs to another network, because these variables differ:"
            f" {', '.join(differing[:8])}{' ...' if len(differing) > 8 else ''}; use a checkpoint of this"
            " network."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
