"""The folder of a run: what it was started with, and what came of it.

    flags.cfg                  an absl flagfile: with --run_dir=OTHER it repeats the run; its first
                               line is a comment that names the experiment, the last says "end"
    code.json                  digests of the code that it was trained with (`core.runs.code_digest`)
    metrics.csv                a row for each epoch
    summary.json               final and best figures, parameters, time, versions
    predictions/epoch_NNN.png  photo, truth, prediction, errors
    curves.png                 where matplotlib is installed
    checkpoints/               last, previous and best, `.npz`
    data_split.npz             which photos were trained and validated on, see core.data.membership

Nothing here is ever deleted; all but the pictures follows from the checkpoint.
"""

import contextlib
import csv
import io
import json
import math
import os

from core.runtime import cli, files
from core.runtime.errors import InputError

NAMED = "# python -m experiments."  # how flags.cfg begins
END = "# end"  # its last line: what is cut has none

# What may differ when a run is continued: none of it changes a result.
RESUMABLE = {"data_dir", "run_dir", "cache_dir", "checkpoint_every", "tensorboard"}  # data has its checksum


def result_flags(define_flags, values):
    """name -> value of those flags of a function that decide the result of a training."""
    return {name: values[name].value for name in sorted(cli.parse(define_flags)) if name not in RESUMABLE}


@contextlib.contextmanager
def claim(folder, experiment, define_flags, values):
    """Hold a run folder for one process; make it, or see that it fits experiment and flags.

    experiment: its name. values: the flags of this run, among them all that
    define_flags defines. Raises InputError if another process trains there, or if
    the folder was begun by another experiment or with other flags.
    """
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
        path = folder / "flags.cfg"
        names = sorted(cli.parse(define_flags))
        if not any((folder / "checkpoints").glob("*.npz")):  # nothing came of other settings yet
            lines = [NAMED + experiment, *(values[name].serialize() for name in names), END]
            files.write_text(path, "".join(f"{line}\n" for line in lines if line))
        if experiment_name(folder) != experiment:
            raise InputError(
                f"{folder} is a run of {experiment_name(folder)}, not of {experiment};"
                " take another --run_dir."
            )
        begun = read_flags(folder, define_flags, without=("data_dir",))  # which may have moved
        differing = [
            f"--{name} (begun with {begun[name].value}, now {value})"
            for name, value in result_flags(define_flags, values).items()
            if begun[name].value != value
        ]
        if differing:
            raise InputError(
                f"{folder} was begun with other settings: {', '.join(differing)};"
                f" take another --run_dir, or continue it with --flagfile={path}."
            )
        yield


def experiment_name(folder):
    """Which experiment a run folder is of. Raises InputError if it is no run folder."""
    first = _flags_cfg(folder)[0]
    if not first.startswith(NAMED):
        raise InputError(f"{folder / 'flags.cfg'}: the first line must be '{NAMED}' and a name.")
    return first.removeprefix(NAMED)


def read_flags(folder, define_flags, *, without=(), extra=()):
    """The flags that a run was begun with, as `flags.FlagValues`.

    without: names of flags to leave out; extra: arguments to add. Raises InputError
    that names flags.cfg where it was damaged.
    """
    others = "#", *(f"--{name}=" for name in without)
    lines = _flags_cfg(folder)
    if lines[-1] != END:
        raise InputError(f"{folder / 'flags.cfg'}: cut before its last line, {END}; restore it from a copy.")
    lines = [line for line in lines if line.strip() and not line.startswith(others)]
    try:
        return cli.parse(define_flags, [*lines, *extra])
    except InputError as error:
        raise InputError(f"{folder / 'flags.cfg'}: {error}") from None


def _flags_cfg(folder):
    """The lines of flags.cfg, at least one."""
    path = folder / "flags.cfg"
    if not os.path.isfile(path):
        raise InputError(
            f"{folder}: no flags.cfg here, so this is not the folder of a run; name another --run_dir."
        )
    try:
        return path.read_text("utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text; restore the file from a copy.") from None


def write_metrics(folder, history):
    """metrics.csv: history is a list of dicts with the same keys, one for each epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0])
    writer.writeheader()
    writer.writerows(history)
    files.write_text(folder / "metrics.csv", text.getvalue())


def write_json(path, value):
    """A dict as JSON: NaN and infinity, which that does not know, become null."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    files.write_text(path, text + "\n")


def write_picture(path, picture):
    """A PIL image as PNG."""
    with files.atomic(path) as file:
        picture.save(file, "PNG")


def write_figure(path, figure):
    """A matplotlib figure as PNG."""
    with files.atomic(path) as file:
        figure.savefig(file, format="png")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
