"""Write and read the file that records which examples a run trained and validated on.

The file is `data_split.npz` in the run folder. It holds a hash of the decoded photo of each training and
validation example (`core.data.cache.Examples.split_hashes`). If photos are cut into patches, the photo of an
example is a patch. The hashes still identify the photos if the data set has been moved or has grown. Paths
change when the data set is moved. If the data set has grown, the same --limit and split seed select other
photos.
"""

import numpy as np

from core.runtime import files

NAME = "data_split.npz"


def write(folder, train, val):
    """Write the photo hashes of a run's training and validation examples to data_split.npz.

    folder: the run folder. train, val: `core.data.cache.Examples` of the two splits.
    """
    with files.atomic(folder / NAME) as file:
        np.savez(file, train=train.split_hashes, val=val.split_hashes)


def read(folder):
    """Return the photo hashes of a run, {"train": int64 [N], "val": int64 [K]}, from data_split.npz.

    Returns None if the file does not exist. folder: the run folder. Raises InputError if the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    arrays = files.read_arrays(path, ("train", "val"))
    return {split: arrays[split].astype(np.int64) for split in ("train", "val")}
