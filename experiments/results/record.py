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
    """Return a sorted list of the flags whose values differ between two recorded commands.

    Flags that affect results at most by rounding, such as --tensorboard, and --seed are left out.
    """
    unaffected = {"seed", *run_folder.RESUMABLE} - {"data_dir"}  # without --data_dir, the data are generated

    def values(text):
        found = {}
        for word in text.split():
            name, _, value = word.partition("=")
            try:
                found[name] = float(value)  # 2 and 2.0 are the same value
            except ValueError:
                found[name] = value
        return {item for item in found.items() if item[0].removeprefix("--") not in unaffected}

    return sorted({name for name, _ in values(command) ^ values(other)})


def text(folder, *, settings, data, machine, commit, remark):
    """Return the text of the result file for the run in `folder`.

    folder: the path of the run folder. settings, data, machine, commit, remark: texts for the header, as the
    user gave them. If remark is empty, the header has no remark. If the run has another --batch_size than the
    article, the cells of the experiment's `measures` are empty, because they depend on the batch size. Raises
    InputError if the training has not ended, or if a file of the run is damaged.
    """
    summary = run_folder.read_summary(folder)
    if not summary:
        raise InputError(f"{folder}: no summary.json, or a damaged one; wait until the training has ended.")
    rows = run_folder.read_metrics(folder)
    _, state = checkpoint.load(folder / "checkpoints" / "last.npz")
    planned = run_folder.recorded_flag(folder, "epochs")
    may_stop_early = run_folder.recorded_flag(folder, "early_stopping_patience") != "0"
    continued = planned != str(state["epoch"]) and not may_stop_early
    if continued or not state["epoch"] == rows[-1]["epoch"] == summary["final"]["epoch"] or state["step"]:
        raise InputError(f"{folder}: the training of more epochs has begun; wait until it has ended.")
    header = {
        "command": command((folder / "flags.cfg").read_text(encoding="utf-8")),
        "settings": settings,
        "data": data,
        "images": checkpoint.image_checksums(state),
        "seed": run_folder.recorded_flag(folder, "seed"),
        "machine": machine,
        "versions": ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime((folder / "checkpoints/last.npz").stat().st_mtime)),
        "minutes": round(summary["seconds"] / 60),
        **({"remark": remark} if remark else {}),
    }
    lines = [f"# {key}: {value}" for key, value in header.items()] + [",".join(rows[0])]
    unlike = _depend_on_batches(folder)
    for row in rows:
        lines.append(",".join("" if name in unlike else f"{value:.6g}" for name, value in row.items()))
    return "".join(f"{line}\n" for line in lines)


def images(folder):
    """Return the `checkpoint.image_checksums` of the run in a folder."""
    return checkpoint.image_checksums(checkpoint.load(folder / "checkpoints" / "last.npz")[1])


def _depend_on_batches(folder):
    """Return the columns of a run's metrics.csv whose values depend on its --batch_size, a set of names.

    The set is empty if the run has the batch size of the article. folder: the run folder.
    """
    module = article(run_folder.experiment_name(folder))
    trained = run_folder.read_flags(folder, module.define_flags, without=("data_dir",))
    if trained.batch_size == cli.parse(module.define_flags).batch_size:
        return set()
    return {f"val_{name}" for name in module.experiment(trained).measures}
