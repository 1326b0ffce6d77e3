"""Convert mask colours to class ids, exactly or within a tolerance."""

import numpy as np

OTHER = 255  # the class id of a colour that belongs to no class
# A colour that differs from a class colour by at most NEAR in each channel is probably that class colour,
# changed by lossy compression.
NEAR = 32


def pack(colours):
    """Convert RGB colours, uint8 [..., 3], to packed colours, int32 [...]: the integers 0xRRGGBB."""
    return np.asarray(colours, np.uint8).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def unpack(colour):
    """Return (red, green, blue), each 0..255, of a packed colour 0xRRGGBB."""
    return int(colour) >> 16, int(colour) >> 8 & 255, int(colour) & 255


def class_ids(packed, palette, tolerance=0):
    """Convert packed colours, int32 [...], to class ids, uint8 [...].

    The class id of a colour is the index of the nearest palette colour, or OTHER if no palette colour is
    within the tolerance. If several palette colours are equally near, the first of them is chosen.

    packed: see `pack`. palette: RGB of each class. tolerance: the largest allowed difference between a
    colour and a palette colour in any channel, 0..255.
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
    """For each of N packed colours, return the index of the nearest palette colour and the distance to it.

    The distance between two colours is their largest difference in any channel, 0..255. Returns two
    arrays: the indices in the palette, int64 [N], and the distances, int16 [N]. palette: RGB of each class.
    """
    rgb = np.array([unpack(colour) for colour in colours], np.int16).reshape(-1, 1, 3)
    distances = np.abs(rgb - np.array(palette, np.int16)).max(axis=-1)  # [N, colours of the palette]
    return distances.argmin(axis=1), distances.min(axis=1)
