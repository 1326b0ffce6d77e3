"""Cut large photos into square patches, and split the patches at random, by patch or by photo."""

import math

import numpy as np

from core.runtime.errors import InputError


def cut(pixels, size):
    """Cut [H, W, ...] into patches [K, size, size, ...], row by row; remaining pixels are dropped."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    grid = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, *pixels.shape[2:])
    return grid.swapaxes(1, 2).reshape(rows * columns, size, size, *pixels.shape[2:])


def require_one(photo, photo_file, size):
    """Raise InputError if a PIL image is smaller than one patch."""
    if min(photo.size) < size:
        raise InputError(
            f"{photo_file}: {photo.width}x{photo.height} pixels are too few for a patch of {size}; take a"
            " smaller --patch_size or remove the photo and its mask."
        )


def held_out(count, share, seed):
    """Draw a random share (0 to 1, rounded up) of the indices 0 .. count - 1: int64.

    The result equals scikit-learn's train_test_split(test_size=share, random_state=seed), and
    never changes, because NumPy guarantees the numbers of RandomState.
    """
    order = np.random.RandomState(seed).permutation(count)
    return order[: math.ceil(round(share * count, 9))]


def select(owner, split, split_by, share, seed):
    """Return the indices of a split's examples. owner: int64 [N], the photo of each example.

    share: the share of the examples (split_by "patch") or of the photos ("image") used for validation.
    Raises InputError if there is only one example, or one photo.
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
