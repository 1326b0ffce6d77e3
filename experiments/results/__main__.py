"""Print the results tables, write them into README.md and BUILD_NOTES.md, or add a finished run.

Run: python -m experiments.results              prints both tables
     python -m experiments.results --write      puts them into README.md and BUILD_NOTES.md
     python -m experiments.results --curves=curves.png
     python -m experiments.results --add=RUN --name=GROUP_sSEED --settings=... --data=... --machine=...

All numbers come from the CSV files in experiments/results/; a test checks that README.md agrees.
"""

import re
from pathlib import Path

from absl import flags

from core.runtime import cli
from core.runtime.errors import InputError
from experiments.results import record, tables

ROOT = Path(__file__).parent.parent.parent


def define_flags(values):
    """Define the flags of this command."""
    flags.DEFINE_bool(
        "write", False, "Write the tables into README.md and BUILD_NOTES.md.", flag_values=values
    )
    for name, default, help_text in (
        ("curves", None, "Write the validation curves of all runs to this PNG file."),
        ("add", None, "Folder of a finished run to add as a result file."),
        ("name", None, "With --add: name of the result file, GROUP_sSEED, as in road_best_s0."),
        ("settings", "not recorded", "With --add: the article's, better, or what differs."),
        ("data", "not recorded", "With --add: how many images were trained and validated on."),
        ("machine", "not recorded", "With --add: processor or GPU, memory, and what else ran on it."),
        ("commit", "not recorded", "With --add: commit of the code that trained."),
        ("remark", "", "With --add: what else a reader must know."),
    ):
        flags.DEFINE_string(name, default, help_text, flag_values=values)


def run(flags):
    """Print or write the tables and curves, or add a run, as the flags say; return 0.

    Raises InputError for an unusable run folder or name.
    """
    if flags.add:
        add(flags)
    found = tables.groups()
    if flags.curves:
        draw_curves(found, flags.curves)
    elif flags.write:
        put(ROOT / "README.md", tables.articles_table(found))
        put(ROOT / "BUILD_NOTES.md", tables.groups_table(found))
    elif not flags.add:
        print(tables.articles_table(found))
        print(tables.groups_table(found), end="")
    return 0


def add(flags):
    """Write the result file of the run folder given by --add."""
    if not re.fullmatch(rf"({'|'.join(tables.CHOOSES_BEST)})_\w+_s\d+", flags.name or ""):
        raise InputError(
            f"--name={flags.name}: the name must begin with one of {', '.join(tables.CHOOSES_BEST)} and end"
            " with _s and the seed, as in road_best_s0."
        )
    path = tables.FOLDER / f"{flags.name}.csv"
    path.write_text(
        record.text(
            Path(flags.add),
            settings=flags.settings,
            data=flags.data,
            machine=flags.machine,
            commit=flags.commit,
            remark=flags.remark,
        ),
        encoding="utf-8",
    )
    print(path)


def put(path, table):
    """Replace the text between <!-- results --> and <!-- end of results --> in a file."""
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- end of results -->")
    if not end:
        raise InputError(f"{path}: has no lines <!-- results --> and <!-- end of results -->; put them back.")
    path.write_text(f"{before}{start}{table}{end}{after}", encoding="utf-8")


def draw_curves(found, path):
    """Draw, for each experiment, the metric that chooses the best epoch over the epochs."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--curves: install the extra `plots`, which brings matplotlib.") from None
    figure = Figure(figsize=(4 * len(tables.CHOOSES_BEST), 3.2), layout="constrained")
    panels = figure.subplots(1, len(tables.CHOOSES_BEST))
    for panel, (word, column) in zip(panels, tables.CHOOSES_BEST.items()):
        for name, results in found.items():
            for result in results:
                points = [(row["epoch"], row[column]) for row in result.epochs if column in row]
                if name.startswith(f"{word}_") and len(points) > 2:
                    panel.plot(*zip(*points), label=f"{name}_s{result.header['seed']}", linewidth=1)
        panel.set(title=f"{word}: {tables.COLUMNS[column]}", xlabel="epoch")
        panel.legend(fontsize=6)
    figure.savefig(path, dpi=90)
    print(path)


if __name__ == "__main__":
    cli.main(define_flags, run)
