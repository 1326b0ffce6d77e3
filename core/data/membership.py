"""Write and read the file that records which photos a run trained and validated on.

The file is `data_split.npz` in the run folder. It holds a hash of the decoded pixels of each training
and validation photo (`core.data.cache.Examples.checksums`). Hashes identify the photos even after the
data set has been moved or has grown. Paths, --limit and split seeds do not.
"""

import numpy as np

from core.runtime import files

NAME = "data_split.npz"


def write(folder, train, val):
    """Write the photo hashes of a run's splits, train and val, each a `core.data.cache.Examples`.

    folder: the run folder.
    """
    with files.atomic(folder / NAME) as file:
        np.savez(file, train=train.checksums, val=val.checksums)


def read(folder):
    """Return a run's photo hashes, {"train": int64 [N], "val": int64 [K]}, or None without the file.

    folder: the run folder. Raises InputError if the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    arrays = files.read_arrays(path, ("train", "val"))
    return {split: arrays[split].astype(np.int64) for split in ("train", "val")}
