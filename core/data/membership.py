"""The record of which photos a run trained and validated on, identified by hashes of their pixels.

Paths, --limit and split seeds do not identify a photo once a data set has moved or grown; its
decoded pixels do. `data_split.npz` in the run folder holds `Examples.checksums` of both splits.
"""

import zipfile

import numpy as np

from core.runtime import files
from core.runtime.errors import InputError

NAME = "data_split.npz"


def write(folder, train, val):
    """Write a run's record from the `core.data.cache.Examples` of its two splits."""
    with files.atomic(folder / NAME) as file:
        np.savez(file, train=train.checksums, val=val.checksums)


def read(folder):
    """Return {"train": int64 [N], "val": int64 [K]}, or None for a run without a record.

    Raises InputError if the record is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as record:
            return {split: record[split].astype(np.int64) for split in ("train", "val")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: damaged record of the run's images ({error}); restore it from a copy or delete it."
        ) from None
