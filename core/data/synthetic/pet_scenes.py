"""Generate photos of pets with trimaps, for running the pet experiments without real data.

Each photo shows an animal with head, ears, legs, tail and a coat that often has patches. The
background is a wall, a floor and coloured shapes. Some shapes have coat colours, so the colour of a single
pixel is not enough to decide whether the pixel is pet.

On one machine, the same seed and the same versions of NumPy and Pillow give the same pixels. On another
machine, single pixels may differ by rounding.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PET, BACKGROUND, OUTLINE = 1, 2, 3  # values as in the trimaps of the Oxford-IIIT Pet data set
# RGB of the coat colours of the pets
COATS = np.array(
    [(60, 45, 35), (150, 100, 60), (205, 165, 110), (235, 230, 220), (95, 95, 100), (30, 30, 32)]
)


def scene(seed):
    """Return a generated photo, uint8 [H, W, 3], and its trimap, uint8 [H, W].

    H and W are random, from 160 to 260 pixels. seed: an int or a sequence of ints, each at least 0.
    """
    rng = np.random.RandomState(seed)
    width, height = (int(side) for side in rng.randint(160, 261, 2))
    photo, body = _room(rng, width, height), Image.new("L", (width, height))
    _pet(rng, photo, body)
    inner, outer = body.filter(ImageFilter.MinFilter(5)), body.filter(ImageFilter.MaxFilter(5))
    trimap = np.where(np.asarray(inner), PET, np.where(np.asarray(outer), OUTLINE, BACKGROUND))
    pixels = np.asarray(photo.filter(ImageFilter.GaussianBlur(0.6)), np.float32)
    pixels = pixels * rng.uniform(0.7, 1.2) + rng.normal(0, rng.uniform(3, 10), pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), trimap.astype(np.uint8)


def _room(rng, width, height):
    """Return a PIL image of the background, which is a wall, a floor and random shapes."""
    photo = Image.new("RGB", (width, height), _colour(rng.randint(40, 220, 3)))
    draw = ImageDraw.Draw(photo)
    floor = rng.randint(height // 2, height)
    draw.rectangle([0, floor, width, height], fill=_colour(rng.randint(40, 200, 3)))
    for _ in range(rng.randint(6, 16)):  # ellipses and rectangles, about half of them in coat colours
        x, y = rng.randint(0, width), rng.randint(0, height)
        w, h = rng.randint(8, 70, 2)
        colour = COATS[rng.randint(len(COATS))] if rng.rand() < 0.5 else rng.randint(0, 256, 3)
        shape = draw.ellipse if rng.rand() < 0.4 else draw.rectangle
        shape([x, y, x + w, y + h], fill=_colour(colour + rng.randint(-15, 16, 3)))
    return photo


def _pet(rng, photo, body):
    """Draw an animal into the PIL image `photo`, and its silhouette, with the value 255, into `body`.

    In the calls of `ellipse` and `polygon`, coordinates are relative to the middle of the trunk, and
    coordinates and radii are multiples of `unit`.
    """
    width, height = photo.size
    unit = min(width, height) * rng.uniform(0.09, 0.15)
    x, y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.5, 0.65)
    side = rng.choice([-1, 1])
    coat = COATS[rng.randint(len(COATS))] + rng.randint(-12, 13, 3)
    patch = COATS[rng.randint(len(COATS))]
    draws = ImageDraw.Draw(photo), ImageDraw.Draw(body)

    def ellipse(dx, dy, rx, ry, colour, silhouette=True):
        """Draw an ellipse with the centre (dx, dy) and the radii rx and ry.

        If silhouette is False, only `photo` is changed.
        """
        cx, cy = x + side * dx * unit, y + dy * unit
        box = [int(cx - rx * unit), int(cy - ry * unit), int(cx + rx * unit), int(cy + ry * unit)]
        draws[0].ellipse(box, fill=_colour(colour))
        if silhouette:
            draws[1].ellipse(box, fill=255)

    def polygon(points, colour):
        points = [(int(x + side * dx * unit), int(y + dy * unit)) for dx, dy in points]
        draws[0].polygon(points, fill=_colour(colour))
        draws[1].polygon(points, fill=255)

    for leg in (-1.3, -0.8, 0.6, 1.1):
        polygon([(leg, 0.3), (leg + 0.4, 0.3), (leg + 0.35, 2.2), (leg + 0.05, 2.2)], coat * 0.85)
    tail = rng.uniform(-1.8, 0.2)
    polygon([(-1.5, -0.3), (-3.0, tail), (-2.8, tail - 0.3), (-1.3, -0.7)], coat * 0.9)
    ellipse(0, 0, 1.9, 1.1, coat)
    for _ in range(rng.randint(0, 4)):
        ellipse(rng.uniform(-1, 1), rng.uniform(-0.5, 0.4), 0.45, 0.3, patch, silhouette=False)
    for ear in (-0.55, 0.35):
        if rng.rand() < 0.6:
            polygon([(1.8 + ear, -1.7), (2.0 + ear, -2.9), (2.4 + ear, -1.7)], coat * 0.8)
        else:
            ellipse(2.0 + ear * 1.6, -1.4, 0.35, 0.8, coat * 0.8)
    ellipse(2.0, -1.2, 1.0, 0.95, coat)
    ellipse(2.5, -0.9, 0.45, 0.35, patch, silhouette=False)
    for eye in (1.7, 2.4):
        ellipse(eye, -1.45, 0.13, 0.13, (20, 20, 20), silhouette=False)


def _colour(values):
    return tuple(int(value) for value in np.clip(values, 0, 255))
