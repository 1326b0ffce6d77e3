"""Make the result file of a finished run. `experiments.results.tables` describes the form of result files."""

import time

from core.runs import checkpoint, run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article

LEFT_OUT = ("run_dir", "cache_dir")  # flags that the recorded command omits
# Name of a flag -> word that replaces the flag's value in the recorded command if the value is a path. For a
# flag that is not in NAMES, the word is the flag's name in capitals.
NAMES = {"data_dir": "DIR", "encoder_weights": "WEIGHTS"}


def command(flags_cfg):
    """Return the command that trains a run, with all flags that differ from their defaults.

    The flags in LEFT_OUT are omitted. flags_cfg: the text of the run's flags.cfg. Values with a slash are
    taken for paths. A path is replaced by a word such as DIR, because it does not exist on another machine.
    """
    first, *lines = flags_cfg.splitlines()
    experiment = first.rpartition(".")[2]
    values = cli.parse(article(experiment).define_flags)
    defaults = {values[name].serialize() for name in values}
    words = [f"python -m experiments.{experiment}"]
    for line in lines:
        name, _, value = line.removeprefix("--").partition("=")
        if line.startswith("--") and line not in defaults and name not in LEFT_OUT:
            words.append(f"--{name}={NAMES.get(name, name.upper())}" if "/" in value else line)
    return " ".join(words)


def differing_flags(command, other):
    """Return a sorted list of the flags, except --seed, whose values differ between two recorded commands."""

    def values(text):
        found = {}
        for word in text.split():
            name, _, value = word.partition("=")
            try:
                found[name] = float(value)  # 2 and 2.0 are the same value
            except ValueError:
                found[name] = value
        return {item for item in found.items() if item[0] != "--seed"}

    return sorted({name for name, _ in values(command) ^ values(other)})


def text(folder, *, settings, data, machine, commit, remark):
    """Return the text of the result file for the run in `folder`.

    folder: the path of the run folder. settings, data, machine, commit, remark: texts for the header, as the
    user gave them. If remark is empty, the header has no remark. Raises InputError if the training has not
    ended, or if a file of the run is damaged.
    """
    summary = run_folder.read_summary(folder)
    if not summary:
        raise InputError(f"{folder}: no summary.json, or a damaged one; wait until the training has ended.")
    header = {
        "command": command((folder / "flags.cfg").read_text(encoding="utf-8")),
        "settings": settings,
        "data": data,
        "seed": run_folder.recorded_flag(folder, "seed"),
        "machine": machine,
        "versions": ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime((folder / "checkpoints/last.npz").stat().st_mtime)),
        "minutes": round(summary["seconds"] / 60),
        **({"remark": remark} if remark else {}),
    }
    rows = run_folder.read_metrics(folder)
    _, state = checkpoint.load(folder / "checkpoints" / "last.npz")
    if not state["epoch"] == rows[-1]["epoch"] == summary["final"]["epoch"] or state["step"]:
        raise InputError(f"{folder}: the training of more epochs has begun; wait until it has ended.")
    lines = [f"# {key}: {value}" for key, value in header.items()] + [",".join(rows[0])]
    lines += [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    return "".join(f"{line}\n" for line in lines)
