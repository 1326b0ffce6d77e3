"""Warm start (--init_from): take the initial weights of a new run from a checkpoint of another run."""

from pathlib import Path

from core.runs import checkpoint
from core.runtime.errors import InputError


def load(weights, run_dir, name, *, logits):
    """Assign the weights of another run to the variables of a new network; return the origin of the weights.

    weights: name -> `tf.Variable` of the new network. run_dir: the folder of the other run, which must have
    the same network. name: the checkpoint of the other run, "best" or "last". If this checkpoint holds moving
    averages of the weights, the averages are assigned. logits: number of logits per pixel of the new network.

    The number of classes may differ between the two runs. Variables whose shapes differ for this reason keep
    their initial values. Raises InputError if the checkpoint is missing or damaged. If names of variables
    differ, or if shapes differ for another reason, raises InputError with the names of these variables.

    The result is a dict of JSON values. `run` is run_dir, and `checkpoint` is name. `epoch` is the number of
    epochs that the other run had finished at the checkpoint. `initialised_afresh` lists the names
    of the variables that keep their initial values.
    """
    path = Path(run_dir) / "checkpoints" / f"{name}.npz"
    arrays, state = checkpoint.load(path)
    arrays = checkpoint.prediction_variables(arrays)
    fresh = _of_other_classes(weights, arrays, logits)
    kept = {each: variable for each, variable in weights.items() if each not in fresh}
    found = {each: array for each, array in arrays.items() if each not in fresh}
    checkpoint.restore(kept, found, path)
    epoch = state.get("epoch")
    print(f"initial weights: {path}, after {epoch} epochs")
    if fresh:
        print(f"not copied but initialised, because the classes differ: {', '.join(fresh)}")
    return {"run": str(run_dir), "checkpoint": name, "epoch": epoch, "initialised_afresh": fresh}


def _of_other_classes(weights, arrays, logits):
    """Return the sorted names of the variables whose shapes differ because the number of classes differs.

    weights: name -> `tf.Variable` of the new network. arrays: name -> array of the other run. A variable
    belongs to the result if exactly one axis has different sizes in `weights` and `arrays`, and if the size
    of this axis in `weights` is `logits`. Raises InputError if the sizes of these axes in `arrays`
    are not all equal.
    """
    numbers = {}
    for name in weights.keys() & arrays.keys():
        ours, theirs = tuple(weights[name].shape), arrays[name].shape
        differing = [sizes for sizes in zip(ours, theirs) if sizes[0] != sizes[1]]
        if len(ours) == len(theirs) and len(differing) == 1 and differing[0][0] == logits:
            numbers[name] = differing[0][1]
    if len(set(numbers.values())) > 1:
        raise InputError(
            f"--init_from: the run trained another network: the shapes of {', '.join(sorted(numbers))}"
            " differ; give a run with the same network."
        )
    return sorted(numbers)
