"""Cut large photos into square patches, and draw random patches or random photos for validation.

The patches or photos that are not drawn are used for training.
"""

import math

import numpy as np

from core.runtime.errors import InputError


def cut(pixels, size):
    """Cut a photo or mask into a grid of K square patches, and return the patches row by row.

    pixels: array [H, W] or [H, W, C]. size: side of a patch in pixels. Returns an array [K, size, size] or
    [K, size, size, C]. Pixels at the right and lower edges that do not fill a patch are dropped.
    """
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    grid = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, *pixels.shape[2:])
    return grid.swapaxes(1, 2).reshape(rows * columns, size, size, *pixels.shape[2:])


def require_one(photo, photo_file, size):
    """Raise InputError if the photo is too small for one patch.

    photo: PIL image. photo_file: the path that the message names. size: side of a patch in pixels.
    """
    if min(photo.size) < size:
        raise InputError(
            f"{photo_file}: {photo.width}x{photo.height} pixels are too few for a patch of {size}; take a"
            " smaller --patch_size or remove the photo and its mask."
        )


def held_out(count, share, seed):
    """Draw K distinct random indices from 0 .. count - 1 for validation, and return them: int64 [K].

    share: 0 to 1. K is share * count, rounded up. The indices are the same on every machine, because NumPy
    guarantees the numbers of RandomState.

    scikit-learn's train_test_split(test_size=share, random_state=seed) puts the same indices into its test
    part. Exception: a floating-point error in share * count can make scikit-learn draw K + 1 indices.
    """
    order = np.random.RandomState(seed).permutation(count)
    return order[: math.ceil(round(share * count, 9))]


def select(owner, split, split_by, share, seed):
    """Return the indices of the examples that belong to a split: int64, ascending.

    owner:     int64 [N], ascending: for each example, the index of the photo that it was cut from
    split:     "train" or "val"
    split_by:  "patch": the validation examples are drawn at random from all examples. "image": photos are
               drawn at random, and all examples of the drawn photos are used for validation
    share:     share of the examples ("patch") or of the photos ("image") drawn for validation, 0 to 1
    seed:      see `held_out`

    Raises InputError if there is only one example ("patch") or only one photo ("image") to draw from. Also
    raises InputError if the share is so large that no example is left for training.
    """
    groups = owner if split_by == "image" else np.arange(len(owner))
    count = groups[-1] + 1
    if count < 2:
        cure = "add images" if split_by == "image" else "add images or cut smaller patches"
        raise InputError(f"one {split_by} cannot be split into training and validation; {cure}.")
    drawn = held_out(count, share, seed)
    if len(drawn) == count:
        kind = "photos" if split_by == "image" else "patches"
        raise InputError(
            f"a validation share of {share:g} of {count} {kind} leaves none for training; add images or take"
            " a smaller share."
        )
    validates = np.isin(groups, drawn)
    return np.flatnonzero(validates if split == "val" else ~validates)
