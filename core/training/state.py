"""`State`: the progress of a training, which each checkpoint holds in addition to the variables."""

import dataclasses

from core.runtime.errors import InputError

NEW = {"data_dir", "image_files", "initial", "trained"}  # fields that checkpoints of earlier versions lack


@dataclasses.dataclass
class State:
    """The progress of a training. A checkpoint holds the fields as JSON values under their names."""

    epoch: int = 0  # number of finished epochs, including their validation
    step: int = 0  # number of finished steps in the current epoch
    loss_sum: float = 0.0  # sum of the training losses of all images in the current epoch so far
    # duration of the finished steps of the current epoch; a stop by a signal can lose half a second of it
    step_seconds: float = 0.0
    seconds: float = 0.0  # running time until the checkpoint, see `core.training.history`
    data: list = dataclasses.field(default_factory=list)  # checksums of the training and validation images
    history: list = dataclasses.field(default_factory=list)  # a dict per epoch, see `core.training.history`
    data_dir: str = ""  # the folder that the images were read from
    # the result of `setup.image_files`: for each split, the number of photos and a checksum of their paths
    image_files: list = dataclasses.field(default_factory=list)
    # with --init_from, the result of `warm_start.load`, which names the source of the initial weights;
    # otherwise empty
    initial: dict = dataclasses.field(default_factory=dict)
    # "device", "versions" and "lowering" (the applied rules) of the process that trained the last step
    trained: dict = dataclasses.field(default_factory=dict)


def state_from_json(saved, folder):
    """Return the `State` from the JSON values in a checkpoint.

    saved: field name -> value. The fields in NEW may be missing. folder: the run folder. Raises InputError if
    a field that is not in NEW is missing, if a field is unknown, if a value has a wrong type, if step is
    negative, or if epoch is not the length of history.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(State)}
    fits = saved.keys() <= kinds.keys() and kinds.keys() - saved.keys() <= NEW
    fits = fits and all(isinstance(saved[name], kinds[name]) for name in saved)
    if not (fits and saved["step"] >= 0 and saved["epoch"] == len(saved["history"])):
        raise InputError(
            f"{folder / 'checkpoints'}: another version of this project wrote the checkpoint; continue with"
            " that version, or begin a new --run_dir."
        )
    return State(**saved)
