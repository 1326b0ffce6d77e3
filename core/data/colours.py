"""Convert mask colours to class ids, exactly or within a tolerance."""

import numpy as np

OTHER = 255  # the class id of a colour that belongs to no class
NEAR = 32  # a difference of at most this suggests that lossy compression changed a class colour


def pack(colours):
    """Pack colours uint8 [..., 3] into int32 [...]: one integer for red, green and blue."""
    return np.asarray(colours, np.uint8).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def unpack(colour):
    """Return (red, green, blue) of a packed colour."""
    return int(colour) >> 16, int(colour) >> 8 & 255, int(colour) & 255


def class_ids(packed, palette, tolerance=0):
    """Return, for each packed colour, the index of its colour in the palette, or OTHER: uint8 [...].

    tolerance: the largest allowed difference in any channel, 0..255. If several palette colours
    are within the tolerance, the nearest is chosen, and the first of equally near ones.
    """
    ids = np.full(packed.shape, OTHER, np.uint8)
    for class_id, colour in reversed(list(enumerate(pack(palette)))):
        ids[packed == colour] = class_id
    others = ids == OTHER
    if tolerance and others.any():
        colours, inverse = np.unique(packed[others], return_inverse=True)
        nearest, distance = nearest_colours(colours, palette)
        ids[others] = np.where(distance <= tolerance, nearest, OTHER).astype(np.uint8)[inverse]
    return ids


def nearest_colours(colours, palette):
    """Return the index of the nearest palette colour and the largest channel difference to it, each [N]."""
    rgb = np.array([unpack(colour) for colour in colours], np.int16).reshape(-1, 1, 3)
    distances = np.abs(rgb - np.array(palette, np.int16)).max(axis=-1)  # [N, colours of the palette]
    return distances.argmin(axis=1), distances.min(axis=1)


def most_frequent(counts, number=5):
    """Format the most frequent colours of a `collections.Counter` of RGB tuples as text."""
    frequent = ", ".join(f"{colour} {count:,}" for colour, count in counts.most_common(number))
    return frequent + (" ..." if len(counts) > number else "")
