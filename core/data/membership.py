"""Write and read the file that records which examples a run trained and validated on.

The file is `data_split.npz` in the run folder. It holds a hash of the decoded photo of each training and
validation example (`core.data.cache.Examples.checksums`). If photos are cut into patches, the photo of an
example is a patch. The hashes identify the photos even after the data set has been moved or has grown. Paths
would not identify the photos after a move, and --limit and the split seed select other photos in a grown data
set.
"""

import numpy as np

from core.runtime import files

NAME = "data_split.npz"


def write(folder, train, val):
    """Write the photo hashes of a run's training and validation examples to data_split.npz.

    folder: the run folder. train, val: `core.data.cache.Examples` of the two splits.
    """
    with files.atomic(folder / NAME) as file:
        np.savez(file, train=train.checksums, val=val.checksums)


def read(folder):
    """Return the photo hashes of a run, {"train": int64 [N], "val": int64 [K]}, from data_split.npz.

    Returns None if the file does not exist. folder: the run folder. Raises InputError if the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    arrays = files.read_arrays(path, ("train", "val"))
    return {split: arrays[split].astype(np.int64) for split in ("train", "val")}
