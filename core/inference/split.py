"""Select the examples that a run is evaluated on, and count how many of them the run was trained on.

The run folder lists the hashes of the photos that the run used for training and for validation, see
`core.data.membership`. A photo is recognised by its hash, so the run's splits are found again even if the
data set was moved, or if files were added or removed. If the run was trained with --limit=N, and
`evaluate` is called without --data_dir, only the first N files are searched for the run's splits.
"""

import dataclasses

import numpy as np

from core.data import cache, membership


def load(run, split):
    """Load the examples of a split; return (examples, trained_on).

    run: a `restore.Run`. Its flags name the data folder. split: "train", "val" or "all".
    examples: a `cache.Examples`. For "all", it holds all examples of the data set. For "train" and "val", it
    holds the examples that the run used for that split. If the data set has none of these examples, or if the
    run folder has no list of hashes, `examples` is the split that `cache.load_split` returns.
    trained_on: the number of these examples that the run was trained on. It is None in two cases: the run
    folder has no list of hashes; or the data set decodes training photos in another way than `examples`, so
    that equal photos have different hashes. In the second case, trained_on is nevertheless 0 if all examples
    are validation examples of the run.
    Prints the number of examples and trained_on. If trained_on is unknown, prints a warning instead. If the
    "train" or "val" split of the data set differs from the run's split, also prints the messages of `_own`.
    """
    examples = cache.load_split(run.experiment.dataset, run.flags, split)
    record = membership.read(run.folder)
    if record is None:
        print(
            f"warning: {run.folder} has no {membership.NAME}, which lists the run's images, so the run may"
            " have been trained on some of the evaluated images."
        )
        return examples, None
    if split != "all" and not np.array_equal(np.sort(examples.split_hashes), np.sort(record[split])):
        examples = _own(examples, split, record, run.flags.limit)
    # the hashes are comparable if the examples are decoded as in the training, or are the run's own
    comparable = split == "train" or (split == "val" and np.isin(examples.split_hashes, record["val"]).all())
    if not (comparable or _decoded_alike(run.experiment.dataset, examples.files[0])):
        print(
            f"warning: {run.experiment.name} decodes training photos in another way than the {len(examples)}"
            " evaluated examples, so the run may have been trained on some of them."
        )
        return examples, None
    trained_on = int(np.isin(examples.split_hashes, record["train"]).sum())
    print(
        f"{len(examples)} {split} examples from {examples.data_dir}; the run was trained on {trained_on}"
        " of them"
    )
    return examples, trained_on


def _decoded_alike(dataset, files):
    """True if `dataset.read` returns the same photos for both splits. files: the files of an example."""
    train, val = (dataset.read(files, split)[0] for split in ("train", "val"))
    return np.array_equal(train, val)


def _own(examples, split, record, limit):
    """Return a `cache.Examples` with the examples that the run used for a split.

    `load` calls this function if the data set's split differs from the run's split. The function searches the
    cache of `examples`. This cache holds the examples of both splits if `dataset.find` returns the same files
    for both splits, otherwise only the examples of the data set's split.
    If examples of the run's split are missing in the cache, prints their number. If the cache holds examples
    that the run used for neither split, prints the number of these examples. If the cache has none of the
    examples of the run's split, prints only a warning and returns `examples`.
    examples: the data set's split, a `cache.Examples`. split: "train" or "val". record: a dict, split -> the
    hashes of the photos that the run used for the split, int64 [N]. limit: if above 0, `examples` was read
    with this --limit, which the warnings then mention.
    """
    limited = (
        f" Only the first {limit} files were searched, because the run was trained with --limit={limit};"
        f" --data_dir={examples.data_dir} searches all files."
        if limit
        else ""
    )
    hashes = examples.photo_hashes
    rows = np.flatnonzero(np.isin(hashes, record[split]))
    if not len(rows):
        print(
            f"warning: {examples.data_dir} holds none of the run's {split} examples, so the data set's own"
            f" {split} split is evaluated; use --split=all to evaluate all its examples.{limited}"
        )
        return examples
    others = np.isin(hashes, [*record["train"], *record["val"]], invert=True).sum()
    missing = np.isin(record[split], hashes, invert=True).sum()
    if missing:
        print(
            f"warning: {missing} of the run's {len(record[split])} {split} examples are not in"
            f" {examples.data_dir}.{limited}"
        )
    if others:
        print(
            f"{others} of the examples were used neither for training nor for validation and are left out;"
            " --split=all includes them."
        )
    return dataclasses.replace(examples, rows=rows)
