"""Cut large photos into square patches, and split the patches or the photos at random.

Of the two splits, one is used for training and the other for validation.
"""

import math

import numpy as np

from core.runtime.errors import InputError


def cut(pixels, size):
    """Cut pixels [H, W, ...] into a grid of K square patches; return them row by row: [K, size, size, ...].

    Pixels at the right and lower edges that do not fill a patch are dropped.
    """
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    grid = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, *pixels.shape[2:])
    return grid.swapaxes(1, 2).reshape(rows * columns, size, size, *pixels.shape[2:])


def require_one(photo, photo_file, size):
    """Raise InputError if the height or width of a PIL image is below the patch size."""
    if min(photo.size) < size:
        raise InputError(
            f"{photo_file}: {photo.width}x{photo.height} pixels are too few for a patch of {size}; take a"
            " smaller --patch_size or remove the photo and its mask."
        )


def held_out(count, share, seed):
    """Draw distinct random indices from 0 .. count - 1 for validation: int64 [count * share, rounded up].

    share: 0 to 1. scikit-learn's train_test_split(test_size=share, random_state=seed) has the same indices
    in its test part, unless a floating-point error in share * count makes it draw one more. The indices
    are the same on every machine, because NumPy guarantees the numbers of RandomState.
    """
    order = np.random.RandomState(seed).permutation(count)
    return order[: math.ceil(round(share * count, 9))]


def select(owner, split, split_by, share, seed):
    """Return the indices of the examples that belong to a split, "train" or "val".

    owner: int64 [N], ascending: the index of the photo that each example was cut from. split_by: "patch"
    draws the validation examples from all examples. "image" draws photos, and all examples of these
    photos are used for validation. share: share of the examples or of the photos that is drawn. seed: see
    `held_out`. Raises InputError if there is only one example or only one photo to draw from.
    """
    groups = owner if split_by == "image" else np.arange(len(owner))
    count = groups[-1] + 1
    if count < 2:
        raise InputError(
            f"one {split_by} cannot be split into training and validation: add images, or cut smaller"
            " patches and split by patch."
        )
    validates = np.isin(groups, held_out(count, share, seed))
    return np.flatnonzero(validates if split == "val" else ~validates)
