"""The folder of a run: its settings and its results.

    flags.cfg                  an absl flagfile; with --run_dir=OTHER it repeats the run. The first line is
                               a comment that names the experiment, the last line is "# end"
    code.json                  digests of the code that trained the run (`core.runs.code_digest`)
    metrics.csv                one row per epoch
    val_images.npz             confusion matrix and loss of each validation image after the last epoch
    summary.json               final and best metrics, parameters, time, versions
    predictions/epoch_NNN.png  photo, truth, prediction, errors
    curves.png                 if matplotlib is installed
    checkpoints/               last, previous and best, `.npz`
    classes.txt, class_weights.txt   only for runs of `own_images`
    data_split.npz             the training and validation photos, see core.data.membership

Nothing here is ever deleted. Everything except the pictures can be rebuilt from the checkpoint.
"""

import contextlib
import csv
import io
import json
import math
import os
import sys
from pathlib import Path

from core.runtime import cli, files
from core.runtime.errors import InputError

NAMED = "# python -m experiments."  # the first line of flags.cfg begins with this
END = "# end"  # the last line of flags.cfg, which shows that the file is complete

# Flags that may differ when a run is continued, because they do not affect its result.
RESUMABLE = {
    "data_dir",  # the images have a checksum
    "run_dir",
    "cache_dir",
    "data_on_device",
    "lowering",  # changes results by rounding alone
    "checkpoint_every",
    "tensorboard",
}


# Flags whose value may be a path, in addition to --init_from and all flags that end in _dir.
PATH_FLAGS = {"encoder_weights", "classes", "class_weights"}


def result_flags(define_flags, values):
    """Return name -> value of the flags in define_flags that affect the result of a training.

    Paths are absolute.
    """
    names = sorted(cli.parse(define_flags))
    return {name: _absolute(name, values[name].value) for name in names if name not in RESUMABLE}


@contextlib.contextmanager
def claim(folder, experiment, define_flags, values):
    """Lock a run folder for this process; create it, or check that it fits the experiment and flags.

    experiment: its name. define_flags: the function of its script. values: the flags of this run. Raises
    InputError if another process trains in the folder, if the folder belongs to another experiment or
    has other flags, and if the experiment is not named like its script.
    """
    _check_name(experiment, define_flags)
    for path in (folder / "checkpoints", folder / "predictions"):
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with files.writing(folder):
            try:
                stack.enter_context(files.lock(folder / ".lock", wait=False))
            except BlockingIOError:
                raise InputError(
                    f"{folder}: another process trains here; wait for it or take another --run_dir."
                ) from None
        if not is_begun(folder):  # without a checkpoint, the folder's settings may be replaced
            _write_flags(folder, experiment, define_flags, values)
        _check_settings(folder, experiment, define_flags, values)
        yield


def is_begun(folder):
    """True if the run folder holds a checkpoint."""
    return any((folder / "checkpoints").glob("*.npz"))


def keep_text(path, text):
    """Write a text file into a run folder that has no checkpoint yet.

    Raises InputError if another process trains in the folder and the file differs.
    """
    with files.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # all workers write the file at about the same time
        with files.lock(path.parent / ".setup.lock", wait=True):
            if path.is_file() and path.read_bytes() == text.encode():
                return
            try:
                with files.lock(path.parent / ".lock", wait=False):
                    files.write_text(path, text)
            except BlockingIOError:
                raise InputError(
                    f"{path.parent}: another process trains here; wait for it or take another --run_dir."
                ) from None


def _check_name(experiment, define_flags):
    """Raise InputError unless an experiment is named like the module that defines its flags.

    evaluate, predict and export find the script by the name in the run folder. A copied script with
    the old name would therefore get the classes of the original script.
    """
    module = sys.modules.get(getattr(define_flags, "__module__", None))
    if module is None or getattr(module, "__file__", None) is None:
        return
    script = Path(module.__file__).stem  # the module's own name is "__main__" while it runs as a script
    if script != experiment:
        raise InputError(
            f"{module.__file__}: this experiment is named {experiment!r}; write name={script!r}, the name of"
            " its script, in common_flags.define and in Experiment."
        )


def _write_flags(folder, experiment, define_flags, values):
    """Write flags.cfg, with absolute paths, so that a run can be used from any working directory."""
    lines = [NAMED + experiment]
    for name in sorted(cli.parse(define_flags)):
        value = values[name].value
        path = _absolute(name, value)
        lines.append(values[name].serialize() if path == value else f"--{name}={path}")
    files.write_text(folder / "flags.cfg", "".join(f"{line}\n" for line in [*lines, END] if line))


def _check_settings(folder, experiment, define_flags, values):
    """Raise InputError if a run folder was begun by another experiment or with other flags."""
    if experiment_name(folder) != experiment:
        raise InputError(
            f"{folder} is a run of {experiment_name(folder)}, not of {experiment}; take another --run_dir."
        )
    begun = read_flags(folder, define_flags, without=("data_dir",))  # the data may have moved
    differing = {
        name: f"--{name} (begun with {begun[name].value}, now {value})"
        for name, value in result_flags(define_flags, values).items()
        if _absolute(name, begun[name].value) != value
    }
    constant = "schedule" not in begun or begun["schedule"].value == "constant"
    if constant:  # no step depends on the total number of epochs
        differing.pop("epochs", None)
    elif differing.keys() == {"epochs"}:
        raise InputError(
            f"{folder}: {differing['epochs']}: with --schedule={begun['schedule'].value}, the learning rate"
            " of each step depends on the number of epochs, so this would be another training; start a new"
            f" --run_dir with --init_from={folder}."
        )
    if differing:
        raise InputError(
            f"{folder} was begun with other settings: {', '.join(differing.values())};"
            f" take another --run_dir, or continue it with --flagfile={folder / 'flags.cfg'}."
        )


def _absolute(name, value):
    """Return a flag's value; if it is a path, as an absolute path."""
    is_path = name.endswith(("_dir", "init_from")) or (name in PATH_FLAGS and value and os.path.exists(value))
    return os.path.abspath(value) if value and is_path else value


def experiment_name(folder):
    """Return the name of a run's experiment. Raises InputError if the folder is not a run folder."""
    first = _flags_cfg(folder)[0]
    if not first.startswith(NAMED):
        raise InputError(
            f"{folder / 'flags.cfg'}: the first line must be '{NAMED}' followed by an experiment's name."
        )
    return first.removeprefix(NAMED)


def read_flags(folder, define_flags, *, without=(), extra=()):
    """Return the flags that a run was begun with, as `flags.FlagValues`.

    without: names of flags to leave out; extra: arguments to add. --run_dir is `folder`, also if the
    folder was moved. Raises InputError that names flags.cfg if the file is damaged or of another version.
    """
    path, lines = folder / "flags.cfg", _flags_cfg(folder)
    if lines[-1] != END:
        raise InputError(
            f"{path}: the last line is not '{END}': the run is of an older version, or the file was cut;"
            " restore it from a copy, or add that line if no flag is missing."
        )
    others = "#", *(f"--{name}=" for name in without)
    lines = [line for line in lines if line.strip() and not line.startswith(others)]
    try:
        values = cli.parse(define_flags, [*lines, *extra])
        if "run_dir" in values:
            values.run_dir = str(folder)
        return values
    except InputError as error:
        reason = str(error)
        if "Unknown command line flag" in reason:
            cure = (
                ": the run is of another version, or the file is damaged; restore a copy or use that version."
            )
            reason = reason.replace("; see --help.", cure)
        raise InputError(f"{path}: {reason}") from None


def recorded_flag(folder, name):
    """Return a flag's value, as text, in the flags.cfg of a run with checkpoints; otherwise None."""
    if not any((folder / "checkpoints").glob("*.npz")):
        return None
    values = [line.partition("=")[2] for line in _flags_cfg(folder) if line.startswith(f"--{name}=")]
    return values[-1] if values else None


def record_flag(folder, name, value):
    """Write a flag's new value to flags.cfg if it differs; for settings that a continued run may change."""
    lines, flag = _flags_cfg(folder), f"--{name}="
    changed = [f"{flag}{value}" if line.startswith(flag) else line for line in lines]
    if changed != lines:
        files.write_text(folder / "flags.cfg", "".join(f"{line}\n" for line in changed))


def _flags_cfg(folder):
    """Return the lines of flags.cfg; the list is not empty."""
    path = folder / "flags.cfg"
    if not os.path.isfile(path):
        raise InputError(
            f"{folder}: no flags.cfg here, so this is not the folder of a run; name another --run_dir."
        )
    try:
        return path.read_text("utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; restore it from a copy.") from None


def write_metrics(folder, history):
    """Write metrics.csv. history: a list of dicts with the same keys, one per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0])
    writer.writeheader()
    writer.writerows(history)
    files.write_text(folder / "metrics.csv", text.getvalue())


def read_metrics(folder):
    """Return metrics.csv as a list of dicts of floats, one per epoch.

    Raises InputError if the file is damaged, or missing because no epoch is finished.
    """
    path = folder / "metrics.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise InputError(f"{folder}: no metrics.csv; train this run for at least one epoch.") from None
    except (TypeError, ValueError):
        rows = []
    if not rows:
        raise InputError(f"{path}: damaged; continue the training, which writes it again.")
    return rows


def read_summary(folder):
    """Return summary.json as a dict, which is empty if the file is missing or damaged."""
    try:
        return json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def write_json(path, value):
    """Write a dict as JSON. NaN and infinity, which JSON does not have, become null."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    files.write_text(path, text + "\n")


def write_picture(path, picture):
    """Write a PIL image as PNG."""
    with files.atomic(path) as file:
        picture.save(file, "PNG")


def write_figure(path, figure):
    """Write a matplotlib figure as PNG."""
    with files.atomic(path) as file:
        figure.savefig(file, format="png")


def _finite(value):
    """Return a JSON value with None in place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
