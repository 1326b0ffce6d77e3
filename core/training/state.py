"""The progress of a training, saved with the variables in each checkpoint."""

import dataclasses

from core.runtime.errors import InputError

NEW = {"data_dir", "image_files", "initial"}  # fields that checkpoints of earlier versions do not have


@dataclasses.dataclass
class State:
    """The progress of a training. The fields are JSON values; their names are the keys in a checkpoint."""

    epoch: int = 0  # finished epochs, validation included
    step: int = 0  # finished steps of the current epoch
    loss_sum: float = 0.0  # sum of the training loss over the images of these steps
    step_seconds: float = 0.0  # time that these steps took
    seconds: float = 0.0  # running time since the start of the run, without the time between processes
    data: list = dataclasses.field(default_factory=list)  # checksums of training and validation images
    history: list = dataclasses.field(default_factory=list)  # a dict per epoch, see `core.training.history`
    data_dir: str = ""  # folder of the images
    image_files: list = dataclasses.field(default_factory=list)  # see `checks.image_files`
    initial: dict = dataclasses.field(
        default_factory=dict
    )  # the run that --init_from took the weights from, see `warm_start`


def state_from_json(saved, folder):
    """Return the `State` from a checkpoint's JSON values. Raises InputError if the values do not fit."""
    kinds = {field.name: field.type for field in dataclasses.fields(State)}
    fits = saved.keys() <= kinds.keys() and kinds.keys() - saved.keys() <= NEW
    fits = fits and all(isinstance(saved[name], kinds[name]) for name in saved)
    if not (fits and saved["step"] >= 0 and saved["epoch"] == len(saved["history"])):
        raise InputError(
            f"{folder / 'checkpoints'}: the checkpoint was written by another version; restore a copy or"
            " begin a new --run_dir."
        )
    return State(**saved)
