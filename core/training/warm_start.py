"""Initial weights from the checkpoint of another run (--init_from)."""

from pathlib import Path

from core.runs import checkpoint
from core.runtime.errors import InputError


def load(weights, run_dir, name, *, logits):
    """Assign the weights of a run; return a record of their origin as JSON values.

    weights: name -> `tf.Variable` of the new network. run_dir: folder of a run of any experiment
    with the same network. name: its checkpoint, "best" or "last"; averaged weights are used if
    the run has them. logits: number of logits per pixel of the new network.

    A variable keeps its initial values if one of its axes has the size `logits` but another size in
    the run, because the classes differ. Raises InputError that names the variables if anything else
    differs.
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
    """Return the names of the variables whose shapes differ only in the number of classes.

    Raises InputError if these are all variables, or if shapes imply different numbers of classes.
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
            " differ."
        )
    return sorted(numbers)
