"""Print the result tables of README.md and BUILD_NOTES.md, update them in both files, or add a finished run.

Run: python -m experiments.results              prints the tables
     python -m experiments.results --write      replaces the tables in README.md and BUILD_NOTES.md
     python -m experiments.results --curves=curves.png      draws the validation curves of all runs
     python -m experiments.results --add=RUN --name=GROUP_sSEED --settings=... --data=... --machine=...
                                                    writes the result file of the run in the folder RUN

All numbers come from the result files, experiments/results/*.csv. A test checks that README.md and
BUILD_NOTES.md agree with these files.
"""

import re
from pathlib import Path

from absl import flags

from core.runs import run_folder
from core.runtime import cli, files
from core.runtime.errors import InputError
from experiments.results import record, tables

ROOT = Path(__file__).parent.parent.parent


def define_flags(values):
    """Define the flags that choose what to do, and the flags that describe a run to add."""
    flags.DEFINE_bool(
        "write", False, "Replace the tables in README.md and BUILD_NOTES.md.", flag_values=values
    )
    for name, default, help_text in (
        ("curves", None, "PNG file to which the validation curves of runs with at least 3 epochs are drawn."),
        ("add", None, "Folder of a finished run for which a result file is written."),
        ("name", None, "With --add: name of the result file without .csv: GROUP_sSEED, as in road_best_s0."),
        (
            "settings",
            "not recorded",
            'With --add: settings of the run, such as "the article\'s, batches of 8" or "better". Default:'
            " the text of the group's other runs.",
        ),
        (
            "data",
            "not recorded",
            'With --add: images of the run, such as "72 photos, 8 of them for validation". Default: the text'
            " of the group's other runs.",
        ),
        (
            "machine",
            "not recorded",
            "With --add: processor or GPU, memory, and other programs that ran on the machine.",
        ),
        ("commit", "not recorded", "With --add: git commit of the code that trained the run."),
        ("remark", "", "With --add: anything else that affects the result."),
    ):
        flags.DEFINE_string(name, default, help_text, flag_values=values)
        one_line = "must be a single line"
        flags.register_validator(name, lambda text: "\n" not in (text or ""), one_line, flag_values=values)


def run(flags):
    """Do what --add, --curves and --write ask for, in this order; without them, print the tables. Return 0.

    Raises InputError if --add or --write is given to an installed copy instead of a checkout, and if `add`,
    `draw_curves` or `put` does.
    """
    if (flags.add or flags.write) and not (ROOT / "BUILD_NOTES.md").is_file():
        raise InputError(
            f"--add, --write: {ROOT} holds an installed copy of the project, without README.md; run this"
            " command in a checkout."
        )
    if flags.add:
        add(flags)
    found = tables.groups()
    if flags.curves:
        draw_curves(found, flags.curves)
    if flags.write:
        put(ROOT / "README.md", tables.articles_table(found))
        put(ROOT / "BUILD_NOTES.md", tables.groups_table(found))
    if not (flags.add or flags.curves or flags.write):
        print(tables.articles_table(found))
        print(tables.groups_table(found), end="")
    return 0


def add(flags):
    """Write the result file of the run in the folder --add.

    If GROUP has result files, --settings and --data may be left out. Then the group's texts are used. But
    --data is needed if these files do not record the checksums of the images.

    Raises InputError if --name does not have the form GROUP_sSEED, if the first word of GROUP is not a key of
    `tables.ARTICLE_OF` or does not stand for the run's experiment, if SEED is not the run's seed, if the file
    exists, if the run has other flags or images than the other runs of GROUP, if --settings or --data differ
    from the group's texts, or if the run is unfinished.
    """
    named = re.fullmatch(rf"(({'|'.join(tables.ARTICLE_OF)})_\w+)_s(\d+)", flags.name or "")
    if not named:
        raise InputError(
            f"--name={flags.name}: the name must begin with one of {', '.join(tables.ARTICLE_OF)} and end"
            " with _s and the seed, as in road_best_s0. For another experiment, first add an Article to"
            " experiments/results/tables.py."
        )
    (group, word, seed), path = named.groups(), tables.FOLDER / f"{flags.name}.csv"
    if path.exists():
        raise InputError(f"{path}: already exists; give another --name, or delete this file first.")
    experiment = tables.ARTICLE_OF[word].experiment
    if run_folder.experiment_name(Path(flags.add)) != experiment:
        raise InputError(
            f"--name={flags.name}: {word} stands for {experiment}, but {flags.add} is no run of it."
        )
    others = tables.groups(tables.FOLDER).get(group, [])
    texts = {"settings": flags.settings, "data": flags.data}
    if others:
        texts = _texts_of(others, group, flags)
    text = record.text(
        Path(flags.add),
        **texts,
        machine=flags.machine,
        commit=flags.commit,
        remark=flags.remark,
    )
    run_seed = run_folder.recorded_flag(Path(flags.add), "seed")
    if seed != run_seed:
        raise InputError(
            f"--name={flags.name}: must end with _s{run_seed}, because the run's seed is {run_seed}."
        )
    files.write_text(path, text)
    print(path)


def _texts_of(others, group, flags):
    """Return the settings and the data, a dict of texts, for a run that is added to a group.

    others: list of `tables.Result`, the other runs of the group. Raises InputError if the run --add has other
    flags or images than the other runs, or if --settings or --data differ from the group's texts.
    """
    header, folder = others[0].header, Path(flags.add)
    command = record.command((folder / "flags.cfg").read_text(encoding="utf-8"))
    differing = record.differing_flags(command, header["command"])
    if differing:
        raise InputError(
            f"--name={flags.name}: the other runs of {group} have other values of {', '.join(differing)};"
            " give another group."
        )
    checksums = [each.header["images"] for each in others if "images" in each.header]
    if checksums and checksums[0] != record.images(folder):
        raise InputError(
            f"--name={flags.name}: the other runs of {group} have other images; give another group."
        )
    if not checksums and flags.data == flags["data"].default:
        raise InputError(
            f"--data: the other runs of {group} have no record of their images; give"
            f" --data={header['data']!r} if the run has the same images."
        )
    for key in ("settings", "data"):
        if flags[key].value not in (flags[key].default, header[key]):
            raise InputError(
                f"--{key}={flags[key].value}: the other runs of {group} have {header[key]!r}; give another"
                " group in --name, or leave this flag out."
            )
    return {"settings": header["settings"], "data": header["data"]}


def put(path, table):
    """Replace the text between the lines <!-- results --> and <!-- end of results --> in a file by a table.

    path: the file. table: the table as text. Raises InputError if the file lacks these two lines.
    """
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- end of results -->")
    if not end:
        raise InputError(
            f"{path}: has no lines <!-- results --> and <!-- end of results -->; add them before and after"
            " the place of the table."
        )
    files.write_text(path, f"{before}{start}{table}{end}{after}")


def draw_curves(found, path):
    """Draw the curves of all runs to a PNG file: a panel for each experiment, a line for each run.

    found: as returned by `tables.groups`. path: the PNG file. A curve shows the validation metric that
    chooses the best checkpoint, after each epoch in the result file. Runs whose result file has fewer than 3
    epochs are left out. Raises InputError if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--curves: matplotlib is missing; install it with pip install matplotlib.") from None
    figure = Figure(figsize=(4 * len(tables.ARTICLES), 3.2), dpi=90, layout="constrained")
    panels = figure.subplots(1, len(tables.ARTICLES))
    for panel, (word, article) in zip(panels, tables.ARTICLE_OF.items()):
        for name, results in found.items():
            for result in results:
                points = [(row["epoch"], row[article.best]) for row in result.epochs if article.best in row]
                if name.startswith(f"{word}_") and len(points) > 2:
                    panel.plot(*zip(*points), label=f"{name}_s{result.header['seed']}", linewidth=1)
        panel.set(title=f"{word}: {tables.COLUMNS[article.best]}", xlabel="epoch")
        if panel.lines:
            panel.legend(fontsize=6)
    run_folder.write_figure(Path(path), figure)
    print(path)


if __name__ == "__main__":
    cli.main(define_flags, run)
