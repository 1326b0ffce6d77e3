"""Read the result files and format them as Markdown tables.

A result file, `GROUP_sSEED.csv`, describes one run. It begins with a header: one line `# key: value` for each
of the keys command, settings, data, seed, machine, versions, commit, date and minutes. Newer files also have
the key images, with the checksums of the images and masks. A line with the key remark may follow. After the
header come the column names of the run's metrics.csv, and one line of metrics for each recorded epoch. Some
result files do not record all epochs.

The files of a GROUP describe runs with the same data and settings and with different seeds. In two groups of
dubai, the runs also differ in precision. In `mobilenet_article`, `mobilenet_best` and `pets_article`, they
differ in the version of the code. The tables show the mean and the sample standard deviation over the seeds
of a group. The tables do not show the files in early/, which describe older runs.
"""

import csv
import dataclasses
import re
import statistics
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Article:
    """An article and our runs of it: one line of README's table.

    experiment:  the name of the experiment's module.
    link:        author, title and address of the article, in Markdown.
    metric:      the name of the compared metric.
    column:      the metric's column in the result files.
    published:   the metric's value in the article, as text.
    best:        the column, one of COLUMNS, whose largest value chooses the best epoch of a run.
    groups:      names of groups of runs with the article's settings. The part of the first name before the
                 first "_", such as "road", begins the names of all groups of the experiment.
    better:      names of groups of runs with the settings of experiments/best/.

    The table shows two groups: the first group in `groups` that has result files, and the first group in
    `better` that has result files.
    """

    experiment: str
    link: str
    metric: str
    column: str
    published: str
    best: str
    groups: tuple
    better: tuple


ARTICLES = (
    Article(
        experiment="cityscape_road",
        link=(
            "S. Panchal, 2019, [Cityscape Image Segmentation With TensorFlow 2.0]"
            "(https://towardsdatascience.com/cityscape-segmentation-with-tensorflow-2-0-b320b6605cbf)"
            " ([code](https://github.com/shubham0204/Google_Colab_Notebooks))"
        ),
        metric="road IoU",
        column="val_iou",
        published="none given",
        best="val_iou",
        groups=("road_article",),
        better=("road_best",),
    ),
    Article(
        experiment="oxford_pets",
        link=(
            "L. Kapoor, [Semantic image segmentation using UNet]"
            "(https://medium.com/geekculture/semantic-image-segmentation-using-unet-28dbc247d63e)"
            " ([code](https://github.com/lohit-kapoor/Semantic-Image-Segmentation-Using-UNet))"
        ),
        metric="validation loss",
        column="val_loss",
        published="0.394, on 704 of the 3669 photos, read from the article's plot",
        best="val_mean_iou",
        groups=("pets_article",),
        better=("pets_best",),
    ),
    Article(
        experiment="oxford_pets_mobilenet",
        link="TensorFlow tutorial [Image segmentation](https://www.tensorflow.org/tutorials/images/segmentation)",
        metric="accuracy",
        column="val_accuracy",
        published="0.8772, on 704 of the 3669 photos, with masks resized bilinearly",
        best="val_accuracy",
        groups=("mobilenet_article",),
        better=("mobilenet_best",),
    ),
    Article(
        experiment="cityscapes_labels",
        link="U-Net on Cityscapes, blog post of 2021-02-19, signed Bend; no public address known",
        metric="mean IoU of the official 19 classes",
        column="val_mean_iou_19",
        published="none given",
        best="val_mean_iou",
        groups=("labels_article",),
        better=("labels_best",),
    ),
    Article(
        experiment="dubai_aerial",
        link=(
            "A. J. Davies, 2022, [Semantic Segmentation of Aerial Imagery using U-Net in Python]"
            "(https://towardsdatascience.com/semantic-segmentation-of-aerial-imagery-using-u-net-in-python-552705238514)"
            " ([code](https://github.com/ad-1/u-net-aerial-imagery-segmentation))"
        ),
        metric="accuracy",
        column="val_accuracy",
        published="0.8616",
        best="val_accuracy",
        groups=("dubai_patch_article",),
        better=("dubai_patch_best",),
    ),
)

# The first word of the names of an experiment's groups, such as "road" -> `Article`.
ARTICLE_OF = {each.groups[0].split("_")[0]: each for each in ARTICLES}

# Column of the result files -> name of the metric in the tables.
COLUMNS = {
    "val_loss": "loss",
    "val_accuracy": "accuracy",
    "val_iou": "road IoU",
    "val_mean_iou": "mean IoU",
    "val_mean_iou_19": "mean IoU, 19 classes",
    "val_jaccard": "soft Jaccard",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One published run. header: key -> text. epochs: for each epoch, a dict of column -> float."""

    header: dict
    epochs: list


def read(path):
    """Read a result file into a `Result`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    epochs = [{name: float(value) for name, value in row.items() if value} for row in rows]
    return Result(dict(line[2:].split(": ", 1) for line in comments), epochs)


def groups(folder=FOLDER):
    """Read all result files of a folder; return a dict: name of a group -> list of `Result`, one per seed.

    Groups and seeds are in the order of the sorted file names.
    """
    found = {}
    for path in sorted(folder.glob("*.csv")):
        found.setdefault(re.sub(r"_s\d+$", "", path.stem), []).append(read(path))
    return found


def articles_table(found):
    """Return README's table in Markdown: a line for each article, with the published value and our values.

    found: as returned by `groups`. Our values are the metrics after the last epoch.
    """
    head = "experiment", "article", "metric", "published value", "data of our runs"
    lines = [_row(*head, "ours, article's settings", "ours, better settings"), "|---" * 7 + "|"]
    for each in ARTICLES:
        article, better = (
            next((found[name] for name in names if name in found), []) for names in (each.groups, each.better)
        )
        data = next((results[0].header["data"] for results in (article, better) if results), "")
        ours = [_ours(results, each.column, data) for results in (article, better)]
        lines.append(_row(f"`{each.experiment}`", each.link, each.metric, each.published, data, *ours))
    return "\n".join(lines) + "\n"


def groups_table(found):
    """Return the table of BUILD_NOTES.md in Markdown: a line for each group of runs.

    found: as returned by `groups`. The columns in COLUMNS show the metrics after the last epoch. The column
    "best epoch" shows the metric that chooses the best epoch of a run, with its value after the best epoch.
    """
    names = list(COLUMNS.values())
    lines = [
        _row("group", "data; settings", "seeds", "epochs", *names, "best epoch", "minutes"),
        "|---" * (len(names) + 6) + "|",
    ]
    for name, results in found.items():
        header = results[0].header
        rows = [result.epochs[-1] for result in results]
        last = [_mean_and_deviation(rows, column) for column in COLUMNS]
        epochs = ", ".join(dict.fromkeys(f"{result.epochs[-1]['epoch']:g}" for result in results))
        minutes = ", ".join(dict.fromkeys(result.header["minutes"] for result in results))
        about = f"{header['data']}; {_settings(header)}"
        lines.append(_row(f"`{name}`", about, len(results), epochs, *last, _best(name, results), minutes))
    return "\n".join(lines) + "\n"


def _mean_and_deviation(rows, column):
    """Return a text 'mean ± standard deviation' of a metric over the runs of a group.

    For a single run, the text is the value of the metric. If a run lacks the metric, the text is ''.
    rows: for each run, one item of `Result.epochs`. column: the metric's column in the result files.
    """
    values = [row[column] for row in rows if column in row]
    if len(values) < len(rows):
        return ""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def _best(name, results):
    """Return the cell of a group in the column "best epoch", such as 'accuracy 0.8661 ± 0.0043'.

    The cell begins with the name of the metric that chooses the best epoch of a run. The numbers are the mean
    and the standard deviation, over the runs, of this metric after the run's best epoch. name: the group's
    name. results: list of `Result`. If the result file of a run has fewer than two lines of metrics, the cell
    is ''.
    """
    column = ARTICLE_OF[name.split("_")[0]].best
    if any(len(result.epochs) < 2 for result in results):
        return ""
    rows = [max(result.epochs, key=lambda row: row.get(column, 0)) for result in results]
    return f"{COLUMNS[column]} {_mean_and_deviation(rows, column)}"


def _ours(results, column, data):
    """Return a cell of README's table with our value of a metric: 'value (N seeds; settings; data)'.

    results: list of `Result` of a group. column: the metric's column in the result files. data: the text in
    the column "data of our runs" of the same line of the table.

    The data are left out if they equal `data`. The settings are left out if they are "the article's" or
    "better", which the title of the column says. The cell is '' if results is empty.
    """
    if not results:
        return ""
    header, seeds = results[0].header, len(results)
    notes = [f"{seeds} seed{'s' * (seeds > 1)}"]
    if header["settings"] not in ("the article's", "better"):
        notes.append(_settings(header))
    if header["data"] != data:
        notes.append(header["data"])
    rows = [result.epochs[-1] for result in results]
    return f"{_mean_and_deviation(rows, column)} ({'; '.join(notes)})"


def _settings(header):
    """Return the settings in a result file's header as a text for a table.

    At the beginning of the text, "the article's" becomes "article's settings", and "better" becomes "better
    settings". Anywhere in the text, ", clipped" becomes ", gradient clipped".
    """
    text = re.sub(r"^(?:the )?(article's|better)\b", r"\1 settings", header["settings"])
    return text.replace(", clipped", ", gradient clipped")


def _row(*cells):
    """Format cells as a line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"
