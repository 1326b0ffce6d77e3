"""Generate aerial photos with class ids, for running the experiment `dubai_aerial` without real data.

Each photo shows a district from above: sand with groves, and sometimes with ponds, a coast or an unlabeled
plot. A grid of streets at a random angle divides the district into blocks with houses and gardens.
Roofs, streets and sand have similar greys and browns. So the colour of a single pixel is not enough to
decide the class of the pixel.

On one machine, the same seed and the same versions of NumPy and Pillow give the same pixels. On another
machine, single pixels may differ by rounding.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

BUILDING, LAND, ROAD, VEGETATION, WATER, UNLABELED = range(6)  # class ids as in `core.data.dubai_aerial`
SIDES = (340, 661)  # range of heights and widths of photos in pixels; 661 is excluded


def tile_size(tile):
    """Return the (height, width) of the photos in a tile, each from 340 to 660 pixels.

    All photos of a tile have the same size. tile: the number of the tile, an int of at least 0.
    """
    height, width = np.random.RandomState(tile).randint(*SIDES, 2)
    return int(height), int(width)


def scene(seed, *, size):
    """Return a generated photo, uint8 [H, W, 3], and its class ids, uint8 [H, W].

    seed: an int or a sequence of ints, each at least 0. size: (H, W) in pixels.
    """
    rng = np.random.RandomState(seed)
    canvas = _Canvas(rng, size)
    _ground(canvas, rng)
    _streets(canvas, rng)
    return _photograph(canvas, rng), np.array(canvas.labels)


class _Canvas:
    """Draws shapes into the image `photo`, and the class ids of the shapes into the image `labels`.

    The coordinates x and y are in pixels, relative to the centre of the photo. The x axis and the y axis have
    the directions of the streets. So both axes are rotated by a random angle against the edges of the photo.
    """

    def __init__(self, rng, size):
        self.height, self.width = size
        self.photo = Image.new("RGB", (self.width, self.height))
        self.labels = Image.new("L", (self.width, self.height), LAND)
        self._draws = ImageDraw.Draw(self.photo), ImageDraw.Draw(self.labels)
        self.reach = int(np.hypot(*size) / 2) + 1  # at least the distance from the centre to a corner
        angle = rng.uniform(0, np.pi)
        self._axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def polygon(self, points, colour, label=None):
        """Draw a polygon. points: [N, 2], (x, y). colour: RGB, clipped to 0..255. label: a class id.

        If label is None, only the photo is changed.
        """
        points = [self._pixel(point) for point in points]
        self._draws[0].polygon(points, fill=tuple(int(c) for c in np.clip(colour, 0, 255)))
        if label is not None:
            self._draws[1].polygon(points, fill=label)

    def box(self, x, y, width, height, colour, label=None):
        """Draw a rectangle from (x, y) to (x + width, y + height). colour, label: see `polygon`."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        self.polygon(corners, colour, label)

    def label(self, x, y):
        """Return the class id at the point (x, y), or None if the point is outside the photo."""
        x, y = self._pixel((x, y))
        inside = 0 <= x < self.width and 0 <= y < self.height
        return self.labels.getpixel((x, y)) if inside else None

    def blob(self, rng, x, y, radius, colour, label=None):
        """Draw a polygon around (x, y). Its corners are 0.8 to 1.1 times the radius away from (x, y).

        colour, label: see `polygon`.
        """
        angles = np.arange(0, 2 * np.pi, np.pi / 10)
        edge = radius * rng.uniform(0.8, 1.1, len(angles))
        points = np.stack([x + edge * np.cos(angles), y + edge * np.sin(angles)], axis=1)
        self.polygon(points, colour, label)

    def _pixel(self, point):
        """Return the (column, row) of the pixel at a point (x, y)."""
        x, y = point @ self._axes
        return int(x + self.width / 2), int(y + self.height / 2)


def _ground(canvas, rng):
    """Draw sand and groves, and, at random, ponds, a coast and an unlabeled plot."""
    reach = canvas.reach
    sand = np.array([196, 172, 138]) * rng.uniform(0.75, 1.15) + rng.uniform(-10, 10, 3)
    canvas.box(-reach, -reach, 2 * reach, 2 * reach, sand)
    for _ in range(rng.randint(8, 20)):  # patches of paler and darker sand
        x, y = rng.uniform(-reach, reach, 2)
        canvas.blob(rng, x, y, rng.uniform(15, 90), sand * rng.uniform(0.8, 1.12), LAND)
    for _ in range(rng.randint(2, 6)):  # groves
        x, y = rng.uniform(-reach, reach, 2)
        for _ in range(rng.randint(4, 16)):
            dx, dy = rng.normal(0, 26, 2)
            canvas.blob(rng, x + dx, y + dy, rng.uniform(6, 22), _leaves(rng), VEGETATION)
    water = np.array([60, 110, 120]) * rng.uniform(0.6, 1.25) + rng.uniform(-12, 12, 3)
    for _ in range(rng.randint(0, 3)):
        x, y = rng.uniform(-reach, reach, 2)
        canvas.blob(rng, x, y, rng.uniform(20, 70), water, WATER)
    if rng.rand() < 0.5:  # a coast
        shore = reach * rng.uniform(0.1, 0.6)
        edge = [(x, shore + rng.uniform(-9, 9)) for x in np.linspace(-reach, reach, 30)]
        canvas.polygon([*edge, (reach, reach), (-reach, reach)], water, WATER)
    if rng.rand() < 0.5:  # an unlabeled plot
        x, y, width, height = *rng.uniform(-0.6 * reach, 0.4 * reach, 2), *rng.uniform(25, 80, 2)
        canvas.box(x, y, width, height, _grey(rng, 90, 190), UNLABELED)


def _streets(canvas, rng):
    """Draw streets along the x axis and the y axis, and houses and gardens in most blocks between them."""
    asphalt = _grey(rng, 95, 165)
    half = rng.uniform(5, 11)  # half the width of a street
    lines = [_lines(rng, canvas.reach) for _ in range(2)]
    for x0, x1 in zip(lines[0], lines[0][1:]):
        for y0, y1 in zip(lines[1], lines[1][1:]):
            if rng.rand() < 0.7:
                _block(canvas, rng, x0 + half + 4, y0 + half + 4, x1 - half - 4, y1 - half - 4)
    start, length = -canvas.reach, 2 * canvas.reach
    for x in lines[0]:
        canvas.box(x - half, start, 2 * half, length, asphalt, ROAD)
    for y in lines[1]:
        canvas.box(start, y - half, length, 2 * half, asphalt, ROAD)
    paint = _grey(rng, 170, 225)
    for dash in np.arange(start, start + length, 16):
        for x in lines[0]:
            canvas.box(x - 0.5, dash, 1, 7, paint)
    for _ in range(rng.randint(10, 40)):  # cars, in both lanes of the streets along the y axis
        x, y = rng.choice(lines[0]), rng.uniform(-canvas.reach, canvas.reach)
        canvas.box(x + half * rng.choice([-0.7, 0.2]), y, half * 0.5, half * 0.95, rng.uniform(20, 240, 3))


def _lines(rng, reach):
    """Return random positions of parallel streets: a list of floats, ascending, from -reach to reach.

    The positions are the x of the streets along the y axis, or the y of the streets along the x axis.
    """
    lines, line = [], -reach + rng.uniform(0, 80)
    while line < reach:
        lines.append(line)
        line += rng.uniform(75, 170)
    return lines


def _block(canvas, rng, x0, y0, x1, y1):
    """Draw rows of plots in a block, which extends from x0 to x1 and from y0 to y1.

    A plot is left out if its centre is in water.
    """
    y = y0
    while y < y1 - 18:
        depth = min(rng.uniform(24, 60), y1 - y)
        x = x0
        while x < x1 - 18:
            width = min(rng.uniform(24, 70), x1 - x)
            if canvas.label(x + width / 2, y + depth / 2) != WATER:
                _plot(canvas, rng, x, y, width, depth)
            x += width
        y += depth


def _plot(canvas, rng, x, y, width, depth):
    """Draw a house or a garden on a plot, or leave the plot empty, at random.

    The plot extends from (x, y) to (x + width, y + depth).
    """
    what = rng.rand()
    if what < 0.65:
        _house(canvas, rng, x + 3, y + 3, width - 6, depth - 6)
    elif what < 0.8:
        canvas.box(x + 2, y + 2, width - 4, depth - 4, _leaves(rng), VEGETATION)


def _house(canvas, rng, x, y, width, height):
    """Draw a house from above: its shadow, a flat roof with parapet and machinery, and sometimes a tree.

    The roof extends from (x, y) to (x + width, y + height).
    """
    roof = _grey(rng, 110, 235) if rng.rand() < 0.7 else np.array([170, 125, 95]) * rng.uniform(0.7, 1.2)
    shadow = rng.uniform(3, 9)
    canvas.box(x + shadow, y + shadow, width, height, _grey(rng, 45, 75))
    canvas.box(x, y, width, height, roof, BUILDING)
    canvas.box(x + 2, y + 2, width - 4, height - 4, roof * rng.uniform(0.82, 0.98))
    for _ in range(rng.randint(0, 4)):
        dx, dy = rng.uniform(0.1, 0.7, 2)
        canvas.box(x + dx * width, y + dy * height, width * 0.2, height * 0.2, roof * rng.uniform(0.6, 1.2))
    if rng.rand() < 0.3:
        canvas.blob(rng, x, y + height, rng.uniform(4, 8), _leaves(rng), VEGETATION)


def _grey(rng, low, high):
    """Return a random RGB near grey: a random level from low to high, changed by up to 8 in each channel."""
    return rng.uniform(low, high) + rng.uniform(-8, 8, 3)


def _leaves(rng):
    return np.array([82, 100, 62]) * rng.uniform(0.6, 1.3) + rng.uniform(-8, 8, 3)


def _photograph(canvas, rng):
    """Return the canvas's photo with camera effects: uint8 [H, W, 3].

    The effects are lens blur, texture, haze, exposure, white balance and noise.
    """
    coarse = Image.fromarray(rng.randint(0, 256, (24, 24)).astype(np.uint8))
    texture = coarse.resize((canvas.width, canvas.height), Image.Resampling.BICUBIC)
    photo = np.asarray(canvas.photo.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    photo = photo + (np.asarray(texture, np.float32)[..., None] - 128) * rng.uniform(0.05, 0.2)
    photo += (190 - photo) * rng.uniform(0, 0.25)
    photo = photo * rng.uniform(0.75, 1.15) * rng.uniform(0.94, 1.06, 3)
    photo += rng.normal(0, rng.uniform(3, 8), photo.shape)
    return photo.clip(0, 255).astype(np.uint8)
