"""Read the result files and format them as Markdown tables.

A result file, `GROUP_sSEED.csv`, begins with lines `# key: value` (command, settings, data, seed, machine,
versions, commit, date, minutes), followed by the columns of the run's metrics.csv. Runs that differ only
in the seed form a group; a table shows the mean and the sample standard deviation over its seeds.
The tables leave out the folder early/, which contains small runs that were replaced by later ones.
"""

import csv
import dataclasses
import re
import statistics
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Article:
    """A line of README's table.

    link: title and author, in Markdown. column: the metric's column in the result files. published: the
    article's own value. groups, better: names of groups with the article's settings, and with better ones;
    the first group that has files is shown.
    """

    experiment: str
    link: str
    metric: str
    column: str
    published: str
    groups: tuple
    better: tuple


ARTICLES = (
    Article(
        "cityscape_road",
        "S. Panchal, 2019, [Cityscape Image Segmentation With TensorFlow 2.0]"
        "(https://towardsdatascience.com/cityscape-segmentation-with-tensorflow-2-0-b320b6605cbf)",
        "road IoU",
        "val_iou",
        "none given",
        ("road_article", "road_250_article"),
        ("road_best", "road_250_best"),
    ),
    Article(
        "oxford_pets",
        "L. Kapoor, [Semantic image segmentation using UNet]"
        "(https://medium.com/geekculture/semantic-image-segmentation-using-unet-28dbc247d63e)"
        " ([code](https://github.com/lohit-kapoor/Semantic-Image-Segmentation-Using-UNet))",
        "validation loss",
        "val_loss",
        "0.394, read from its plot",
        ("pets_article", "pets_303_clipped"),
        ("pets_best", "pets_303_best"),
    ),
    Article(
        "oxford_pets_mobilenet",
        "TensorFlow tutorial [Image segmentation](https://www.tensorflow.org/tutorials/images/segmentation)",
        "accuracy",
        "val_accuracy",
        "0.8772, on 704 of the 3669 photos",
        ("mobilenet_article",),
        ("mobilenet_best",),
    ),
    Article(
        "cityscapes_labels",
        "Bend, blog post of 2021-02-19, U-Net on Cityscapes; no public address known",
        "mean IoU of the official 19 classes",
        "val_mean_iou_19",
        "none given",
        ("labels_article",),
        ("labels_best", "labels_2975_best"),
    ),
    Article(
        "dubai_aerial",
        "A. J. Davies, 2022, [Semantic Segmentation of Aerial Imagery using U-Net in Python]"
        "(https://towardsdatascience.com/semantic-segmentation-of-aerial-imagery-using-u-net-in-python-552705238514)"
        " ([code](https://github.com/ad-1/u-net-aerial-imagery-segmentation))",
        "accuracy",
        "val_accuracy",
        "0.8616",
        ("dubai_patch_article",),
        ("dubai_patch_best",),
    ),
)

# The metric that chooses the best epoch, by the first word of a group's name.
CHOOSES_BEST = {
    "road": "val_iou",
    "pets": "val_mean_iou",
    "mobilenet": "val_accuracy",
    "labels": "val_mean_iou",
    "dubai": "val_accuracy",
}

COLUMNS = {
    "val_loss": "loss",
    "val_accuracy": "accuracy",
    "val_iou": "road IoU",
    "val_mean_iou": "mean IoU",
    "val_mean_iou_19": "mean IoU of the 19",
    "val_jaccard": "soft Jaccard",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One published run: the header as a dict, and a dict of floats for each epoch."""

    header: dict
    epochs: list


def read(path):
    """Return the `Result` in one file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    epochs = [{name: float(value) for name, value in row.items() if value} for row in rows]
    return Result(dict(line[2:].split(": ", 1) for line in comments), epochs)


def groups(folder=FOLDER):
    """Return group name -> list of `Result`, one for each seed; groups and seeds are sorted."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        found.setdefault(re.sub(r"_s\d+$", "", path.stem), []).append(read(path))
    return found


def articles_table(found):
    """Return README's table: for each article one metric, its published value and ours (last epoch)."""
    lines = [
        _row(
            "experiment",
            "article",
            "metric",
            "published value",
            "data of our runs",
            "ours, article's settings",
            "ours, better settings",
        ),
        "|---" * 7 + "|",
    ]
    for each in ARTICLES:
        article, better = (
            next((found[name] for name in names if name in found), []) for names in (each.groups, each.better)
        )
        data = next((results[0].header["data"] for results in (article, better) if results), "")
        ours = [_ours(results, each.column, data) for results in (article, better)]
        lines.append(_row(f"`{each.experiment}`", each.link, each.metric, each.published, data, *ours))
    return "\n".join(lines) + "\n"


def groups_table(found):
    """Return the table of BUILD_NOTES.md: a line for each group, with its last and its best epochs."""
    names = list(COLUMNS.values())
    lines = [
        _row("group", "data; settings", "seeds", "epochs", *names, "best epoch", "minutes"),
        "|---" * (len(names) + 6) + "|",
    ]
    for name, results in found.items():
        header = results[0].header
        last = [spread(results, column) for column in COLUMNS]
        epochs = f"{max(result.epochs[-1]['epoch'] for result in results):g}"
        minutes = ", ".join(dict.fromkeys(result.header["minutes"] for result in results))
        about = f"{header['data']}; {_settings(header)}"
        lines.append(_row(f"`{name}`", about, len(results), epochs, *last, _best(name, results), minutes))
    return "\n".join(lines) + "\n"


def spread(results, column, epoch=lambda result: result.epochs[-1]):
    """Return 'mean ± deviation' of a column over the runs; '' if a run lacks the column.

    epoch: a function (result) -> the row to use, by default the last one.
    """
    values = [epoch(result)[column] for result in results if column in epoch(result)]
    if len(values) < len(results):
        return ""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _best(name, results):
    """Return the spread of the best metric over the runs, with its name; '' if a run has a single row."""
    column = CHOOSES_BEST[name.split("_")[0]]
    if any(len(result.epochs) < 2 for result in results):
        return ""
    best = spread(results, column, lambda result: max(result.epochs, key=lambda row: row.get(column, 0)))
    return f"{COLUMNS[column]} {best}"


def _ours(results, column, data):
    """Return 'value (N seeds, settings, data)' without what the table's columns already say."""
    if not results:
        return ""
    header, seeds = results[0].header, len(results)
    notes = [f"{seeds} seed{'s' * (seeds > 1)}"]
    notes += [_settings(header)] * (header["settings"] not in ("the article's", "better"))
    notes += [header["data"]] * (header["data"] != data)
    return f"{spread(results, column)} ({'; '.join(notes)})"


def _settings(header):
    """Return a result's settings in full words: "the article's" becomes "article's settings"."""
    text = re.sub(r"^(?:the )?(article's|better)\b", r"\1 settings", header["settings"])
    return text.replace(", clipped", ", gradient clipped")


def _row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"
