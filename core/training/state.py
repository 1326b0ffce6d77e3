"""The progress of a training. Each checkpoint holds it, in addition to the variables."""

import dataclasses

from core.runtime.errors import InputError

NEW = {"data_dir", "image_files", "initial"}  # fields that checkpoints of earlier versions lack


@dataclasses.dataclass
class State:
    """The progress of a training: JSON values, saved under their field names in a checkpoint."""

    epoch: int = 0  # number of finished epochs, including their validation
    step: int = 0  # number of finished steps in the current epoch
    loss_sum: float = 0.0  # sum of the training losses of all images in the current epoch so far
    step_seconds: float = 0.0  # duration of the finished steps in the current epoch
    seconds: float = 0.0  # running time of the run, summed over all its processes
    data: list = dataclasses.field(default_factory=list)  # checksums of training and validation images
    history: list = dataclasses.field(default_factory=list)  # a dict per epoch, see `core.training.history`
    data_dir: str = ""  # folder of the images
    image_files: list = dataclasses.field(default_factory=list)  # the result of `checks.image_files`
    # the run and checkpoint of --init_from, as returned by `warm_start.load`
    initial: dict = dataclasses.field(default_factory=dict)


def state_from_json(saved, folder):
    """Return the `State` with a checkpoint's JSON values.

    saved: field name -> value. folder: the run folder. Raises InputError if fields are missing or unknown, or
    if values have a wrong type or contradict each other.
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
