"""Convert mask colours to class ids, exactly or within a tolerance."""

import numpy as np

OTHER = 255  # the class id of a colour that belongs to no class
# A colour that differs from a class colour by at most NEAR in each channel is probably that class colour,
# changed by lossy compression.
NEAR = 32


def pack(colours):
    """Pack RGB colours, uint8 [..., 3], into integers 0xRRGGBB, int32 [...]."""
    return np.asarray(colours, np.uint8).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def unpack(colour):
    """Return (red, green, blue), each 0..255, of a packed colour 0xRRGGBB."""
    return int(colour) >> 16, int(colour) >> 8 & 255, int(colour) & 255


def class_ids(packed, palette, tolerance=0):
    """Convert packed colours to class ids, uint8 [...]: the index in the palette, or OTHER.

    packed: int32 [...], see `pack`. palette: RGB of each class. tolerance: the largest allowed
    difference between a colour and its palette colour in any channel, 0..255. If several palette
    colours are within the tolerance, the nearest is chosen. If several are equally near, the first
    is chosen.
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
    """Find the palette colour that is nearest to each of N packed colours.

    The distance between two colours is their largest difference in any channel, 0..255. Returns two
    arrays: the indices in the palette, int64 [N], and the distances, int16 [N].
    """
    rgb = np.array([unpack(colour) for colour in colours], np.int16).reshape(-1, 1, 3)
    distances = np.abs(rgb - np.array(palette, np.int16)).max(axis=-1)  # [N, colours of the palette]
    return distances.argmin(axis=1), distances.min(axis=1)


def most_frequent(counts, number=5):
    """Return a text that lists the most frequent colours of a `collections.Counter` of RGB tuples."""
    frequent = ", ".join(f"{colour} {count:,}" for colour, count in counts.most_common(number))
    return frequent + (" ..." if len(counts) > number else "")
