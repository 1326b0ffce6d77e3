"""Read and write the files of a run folder, which holds the settings and the results of a training.

    flags.cfg                  the flags of the run, an absl flagfile. The first line is a comment that
                               names the experiment. The last line is "# end". If the experiment's script is
                               given --flagfile=flags.cfg --run_dir=OTHER, it repeats the training in OTHER
    code.json                  digests of the code that trained the run (`core.runs.code_digest`)
    metrics.csv                one row of metrics per epoch
    val_images.npz             confusion matrix and loss of each validation image after the last epoch; only
                               for runs with a single replica
    summary.json               metrics of the last and of the best epoch, number of parameters, time, versions
    predictions/epoch_NNN.png  photo, truth, prediction and errors of some validation images
    curves.png                 losses and metrics over the epochs; needs matplotlib
    checkpoints/               last.npz, previous.npz and best.npz
    classes.txt, class_weights.txt   only for runs of the experiment `own_images`
    data_split.npz             hashes of the training and validation photos (`core.data.membership`)
    evaluation/                results of `experiments.evaluate` (`core.inference.report`)
    tensorboard/               metrics and pictures for TensorBoard; only with --tensorboard

These files are never deleted, but a continued run replaces most of them. The new metrics.csv, summary.json
and curves.png cover all epochs, because the checkpoint holds the metrics of earlier epochs.

Checkpoint files may be hard links to the same data, so delete a checkpoint before you copy another file over
it.
"""

import contextlib
import csv
import io
import json
import os
import sys
from pathlib import Path

from core.runtime import cli, files, precision
from core.runtime.errors import InputError

NAMED = "# python -m experiments."  # the first line of flags.cfg: this text, then the experiment's name
END = "# end"  # the last line of flags.cfg, which shows that the file is complete

# Flags whose values may change when a run is continued, because they affect its result at most by rounding.
RESUMABLE = {
    "data_dir",  # the data may be moved; the paths below this folder and the pixels must stay the same
    "run_dir",
    "cache_dir",
    "data_on_device",  # on GPUs, augmented pixels may differ by rounding
    "lowering",  # affects results only by rounding; the training prints a warning if it changed
    "checkpoint_every",
    "tensorboard",
}

# Flags whose values are paths, besides flags whose names end in _dir or _file.
ALWAYS_PATHS = {"init_from", "classes"}
# Flags whose values are paths or other texts, such as "imagenet". A value is a path if a file has this path.
PATHS_OR_TEXTS = {"encoder_weights", "class_weights"}


def result_flags(define_flags, values):
    """Return the flags that affect the result of a training, a dict: name -> value. Paths are absolute.

    These are the flags that define_flags defines, except for the flags in RESUMABLE. define_flags: the
    function of an experiment's script that defines its flags. values: the parsed `flags.FlagValues`.
    """
    names = sorted(cli.parse(define_flags))
    return {name: _absolute(name, values[name].value) for name in names if name not in RESUMABLE}


@contextlib.contextmanager
def claim(folder, experiment, define_flags, values):
    """Context manager that locks a run folder, so that no other process trains in it.

    Creates the folder if it is missing. If it holds no checkpoint, writes flags.cfg. Then
    `check_settings` compares the flags with flags.cfg.

    experiment: the name of the experiment. define_flags: the function of the experiment's script that
    defines its flags. values: the parsed `flags.FlagValues`.

    Raises InputError in these cases:
    - another process trains in the folder
    - the run in the folder was begun by another experiment or with other flags
    - the name of the experiment differs from the name of its script
    - a file of the folder cannot be written, or flags.cfg is missing or damaged
    """
    _check_name(experiment, define_flags)
    for path in (folder / "checkpoints", folder / "predictions"):
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with files.writing(folder):
            stack.enter_context(_exclusive(folder))
        if not is_begun(folder):  # an existing flags.cfg may be replaced, because no checkpoint depends on it
            _write_flags(folder, experiment, define_flags, values)
        # for a new run, this shows that flags.cfg can be read back, for example that no value has line breaks
        check_settings(folder, experiment, define_flags, values)
        yield


def is_begun(folder):
    """True if the run folder holds a checkpoint."""
    return any((folder / "checkpoints").glob("*.npz"))


def keep_text(path, text):
    """Write a text file into the folder of a run that has no checkpoint yet.

    path: the file. Its folder must be the run folder, which is created if it is missing. Does nothing if the
    file already holds this text. If the file is missing or holds another text, and another process trains in
    the folder, raises InputError, because the file would not describe that process's run.
    """
    with files.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # the workers of a distributed training call this function at about the same time
        with files.lock(path.parent / ".setup.lock"):
            if path.is_file() and path.read_bytes() == text.encode():
                return
            with _exclusive(path.parent):
                files.write_text(path, text)


def _exclusive(folder):
    """Return a context manager that locks a run folder.

    Entering it raises InputError if another process has locked the folder.
    """
    busy = f"{folder}: another process trains here; wait for it or take another --run_dir."
    return files.lock(folder / ".lock", busy=busy)


def _check_name(experiment, define_flags):
    """Raise InputError unless the name of an experiment equals the name of the script that defines its flags.

    flags.cfg stores the name of the experiment. The commands evaluate, predict and export load the script
    with this name. If a user copied a script and did not change the name in the copy, these commands would
    load the original script. Does nothing if no file defines the flags, for example in a notebook.
    """
    module = sys.modules.get(getattr(define_flags, "__module__", None))
    if module is None or getattr(module, "__file__", None) is None:
        return
    script = Path(module.__file__).stem  # module.__name__ is "__main__" if the module runs as a script
    if script != experiment:
        raise InputError(
            f"{module.__file__}: this experiment is named {experiment!r}; write name={script!r}, the name of"
            " the script, in common_flags.define and in Experiment."
        )


def _write_flags(folder, experiment, define_flags, values):
    """Write flags.cfg. Paths in the file are absolute, so that a command in any folder can use the file."""
    lines = [NAMED + experiment]
    for name in sorted(cli.parse(define_flags)):
        value = values[name].value
        path = _absolute(name, value)
        lines.append(values[name].serialize() if path == value else f"--{name}={path}")
    files.write_text(folder / "flags.cfg", "".join(f"{line}\n" for line in [*lines, END] if line))


def check_settings(folder, experiment, define_flags, values):
    """Raise InputError if a run was begun by another experiment, or with other values of `result_flags`.

    With --schedule=constant, the value of --epochs may differ, because no training step depends on the number
    of epochs. --precision=auto fits every run, because `setup.choose_precision` replaces it by the run's
    precision.
    """
    begun_by = experiment_name(folder)
    if begun_by != experiment:
        raise InputError(f"{folder} is a run of {begun_by}, not of {experiment}; take another --run_dir.")
    begun = read_flags(folder, define_flags, without=("data_dir",))  # the data may have moved
    differing = {
        name: f"--{name} (begun with {begun[name].value}, now {value})"
        for name, value in result_flags(define_flags, values).items()
        if _absolute(name, begun[name].value) != value
        and (name, value) != ("precision", precision.AUTO)
        # the file may have been deleted, because a begun run does not need it
        and not (name in PATHS_OR_TEXTS and value and os.path.abspath(value) == begun[name].value)
    }
    if begun.schedule == "constant":
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
            f" take another --run_dir, or continue it with --flagfile={folder / 'flags.cfg'}"
            f" --run_dir={folder}."
        )


def _absolute(name, value):
    """Return the value of a flag. If the value is a path, return the absolute path. name: the flag's name."""
    if not value or not isinstance(value, str):
        return value
    is_path = name.endswith(("_dir", "_file")) or name in ALWAYS_PATHS
    return os.path.abspath(value) if is_path or (name in PATHS_OR_TEXTS and os.path.isfile(value)) else value


def experiment_name(folder):
    """Return the name of the experiment in the flags.cfg of a run folder.

    Raises InputError if the folder has no flags.cfg, or if the first line of flags.cfg names no experiment.
    """
    first = _flags_cfg(folder)[0]
    if not first.startswith(NAMED):
        raise InputError(
            f"{folder / 'flags.cfg'}: the first line must be '{NAMED}' followed by an experiment's name."
        )
    return first.removeprefix(NAMED)


def read_flags(folder, define_flags, *, without=()):
    """Return the flags in the flags.cfg of a run folder, as `flags.FlagValues`.

    define_flags: the function of the experiment's script that defines its flags.
    without: names of flags whose values in the file are ignored. These flags keep their defaults.

    --run_dir is set to `folder`. The file may name another folder, because the run folder may have been
    moved. Raises InputError with the path of flags.cfg if the file is damaged, or if its flags belong to
    another version of this project. Raises InputError if the file is missing.
    """
    path, lines = folder / "flags.cfg", _flags_cfg(folder)
    if lines[-1] != END:
        raise InputError(
            f"{path}: the last line is not '{END}': the run is of an older version, or the end of the file is"
            " missing; restore the file from a copy, or add that line if no flag is missing."
        )
    others = "#", *(f"--{name}=" for name in without)
    lines = [line for line in lines if line.strip() and not line.startswith(others)]
    try:
        values = cli.parse(define_flags, lines)
        values.run_dir = str(folder)
        return values
    except InputError as error:
        reason = str(error)
        if "Unknown command line flag" in reason:
            cure = (
                ": the run is of another version, or the file is damaged; use that version, or restore the"
                " file from a copy."
            )
            reason = reason.replace("; see --help.", cure)
        raise InputError(f"{path}: {reason}") from None


def recorded_flag(folder, name):
    """Return the value of a flag in the flags.cfg of a run folder, as text. name: the flag's name.

    Returns None if the run has no checkpoint yet, or if flags.cfg does not contain the flag.
    """
    if not is_begun(folder):
        return None
    values = [line.partition("=")[2] for line in _flags_cfg(folder) if line.startswith(f"--{name}=")]
    return values[-1] if values else None


def record_flag(folder, name, value):
    """Replace the value of a flag in the flags.cfg of a run folder. name: the flag's name.

    The training calls this function for flags whose values may change when a run is continued. Does nothing
    if flags.cfg does not contain the flag.
    """
    lines, flag = _flags_cfg(folder), f"--{name}="
    changed = [f"{flag}{value}" if line.startswith(flag) else line for line in lines]
    if changed != lines:
        files.write_text(folder / "flags.cfg", "".join(f"{line}\n" for line in changed))


def _flags_cfg(folder):
    """Return the lines of the flags.cfg in a run folder, a list of at least one text.

    Raises InputError if the file is missing or not UTF-8 text.
    """
    path = folder / "flags.cfg"
    if not os.path.isfile(path):
        raise InputError(f"{folder}: no flags.cfg here, so this is not a run folder; name another folder.")
    try:
        return path.read_text("utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; restore it from a copy.") from None


def write_metrics(folder, history):
    """Write metrics.csv into a run folder.

    history: a list of dicts, column -> value, one dict per epoch. It holds at least one dict, and all dicts
    have the same keys.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0])
    writer.writeheader()
    writer.writerows(history)
    files.write_text(folder / "metrics.csv", text.getvalue())


def read_metrics(folder):
    """Return the rows of the metrics.csv in a run folder: a list of dicts, column -> float, one per epoch.

    Raises InputError if the file is damaged, or if it is missing because no epoch is finished.
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
        raise InputError(f"{path}: damaged; continue the training, which writes the file again.")
    return rows


def read_summary(folder):
    """Return the content of the summary.json in a run folder, a dict.

    The dict is empty if the file is missing or damaged.
    """
    try:
        return json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def write_json(path, value):
    """Write a dict to a JSON file. NaN and infinity become null, because JSON has no such numbers."""
    finite = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    files.write_text(path, json.dumps(finite, indent=2) + "\n")


def write_picture(path, picture):
    """Write a PIL image to a PNG file."""
    with files.atomic(path) as file:
        picture.save(file, "PNG")


def write_figure(path, figure):
    """Write a matplotlib figure to a PNG file."""
    with files.atomic(path) as file:
        figure.savefig(file, format="png")
