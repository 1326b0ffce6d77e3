"""Select the examples to evaluate a run on, and count how many of them it was trained on.

A run records the hashes of its training and validation photos (`core.data.membership`), so its
splits can be found again in data that have moved, grown or lost files.
"""

import dataclasses

import numpy as np

from core.data import cache, membership


def load(run, split):
    """Return (examples, trained_on) for "train", "val" or "all" of the data that run.flags name.

    run: a `restore.Run`. examples: a `cache.Examples`. trained_on: how many of the examples the run was
    trained on, or None if the run has no record of its photos. If the data contain photos of the
    record, "train" and "val" are the run's own splits; otherwise they are the data set's. Prints the
    number of examples, and whether they differ from the run's.
    """
    examples = cache.load_split(run.experiment.dataset, run.flags, split)
    record = membership.read(run.folder)
    if record is None:
        print("warning: this run has no record of its images, so it may have been trained on some of these.")
        return examples, None
    if split != "all" and not np.array_equal(np.sort(examples.checksums), np.sort(record[split])):
        examples = _own(examples, split, record)
    trained_on = int(np.isin(examples.checksums, record["train"]).sum())
    print(
        f"{len(examples)} {split} examples from {examples.data_dir}; the run was trained on {trained_on}"
        " of them"
    )
    return examples, trained_on


def _own(examples, split, record):
    """Return the examples that belong to the run's own split, from data that differ from the run's."""
    hashes = examples.photo_hashes
    rows = np.flatnonzero(np.isin(hashes, record[split]))
    if not len(rows):
        print(
            f"warning: {examples.data_dir} holds none of the run's {split} examples: the {split} split of"
            " these data is used; --split=all uses all their examples."
        )
        return examples
    others = np.isin(hashes, [*record["train"], *record["val"]], invert=True).sum()
    missing = np.isin(record[split], hashes, invert=True).sum()
    if missing:
        print(f"warning: {missing} of the run's {len(record[split])} {split} examples are not in these data.")
    if others:
        print(
            f"{others} of the examples were used neither for training nor for validation; --split=all"
            " includes them."
        )
    return dataclasses.replace(examples, rows=rows)
