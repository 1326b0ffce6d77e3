"""Generate street scenes with Cityscapes label ids, for use without real data.

Each scene shows a straight or bent road in perspective between kerbs and pavements, with lane marks,
cars, trees, lamps, people, house fronts and sky. Shadows, haze and noise are added. Asphalt, pavement,
walls, cars and clouded sky have similar greys. So the colour of a single pixel is not enough to decide
whether the pixel is road. A network has to learn the shape and position of the road.

On one machine, the same seed and the same versions of NumPy and Pillow give the same pixels. On another
machine, single pixels may differ by rounding.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 256  # height and width of a scene in pixels

# Cityscapes label ids and colours of the classes in the scenes
COLOURS = {
    7: (128, 64, 128),  # road
    8: (244, 35, 232),  # pavement
    11: (70, 70, 70),  # building
    17: (153, 153, 153),  # pole
    20: (220, 220, 0),  # traffic sign
    21: (107, 142, 35),  # vegetation
    22: (152, 251, 152),  # terrain
    23: (70, 130, 180),  # sky
    24: (220, 20, 60),  # person
    26: (0, 0, 142),  # car
}
ROAD, PAVEMENT, BUILDING, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR = COLOURS


def scene(seed):
    """Return a generated photo, uint8 [256, 256, 3], and its Cityscapes label ids, uint8 [256, 256].

    seed: an int or a sequence of ints, each at least 0.
    """
    rng = np.random.RandomState(seed)
    canvas = _Canvas()
    ground = _Ground(rng)
    _sky(canvas, rng, ground)
    _houses(canvas, rng, ground)
    _street(canvas, rng, ground)
    # t is an object's position from 0, the horizon, to 1, nearest to the camera (see `_Ground`). Far objects
    # come first, so that near objects are drawn over far objects.
    for t in np.sort(rng.uniform(0.03, 0.9, rng.randint(5, 13))):
        rng.choice([_car, _car, _tree, _lamp, _person])(canvas, rng, ground, t)
    return _photograph(canvas, rng, ground), np.array(canvas.labels)


class _Canvas:
    """Draws shapes into the image `photo`, and their label ids into the image `labels`.

    Coordinates are in pixels.
    """

    def __init__(self):
        self.photo = Image.new("RGB", (SIZE, SIZE))
        self.labels = Image.new("L", (SIZE, SIZE))
        self._photo, self._labels = ImageDraw.Draw(self.photo), ImageDraw.Draw(self.labels)

    def polygon(self, points, colour, label=None):
        """Draw a polygon. points: (x, y) pairs. colour: RGB, clipped to 0..255. label: a label id.

        If label is None, only the photo is changed. Windows and lane marks are drawn in this way.
        """
        points = [(int(x), int(y)) for x, y in points]
        self._photo.polygon(points, fill=tuple(int(c) for c in np.clip(colour, 0, 255)))
        if label is not None:
            self._labels.polygon(points, fill=label)

    def box(self, x, y, width, height, colour, label=None):
        """Draw a rectangle with the upper left corner (x, y). colour, label: see `polygon`."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        self.polygon(corners, colour, label)

    def ellipse(self, x, y, rx, ry, colour, label=None):
        """Draw an ellipse with the centre (x, y) and the radii rx and ry. colour, label: see `polygon`."""
        angles = np.arange(0, 2 * np.pi, np.pi / 8)
        self.polygon([(x + rx * np.cos(a), y + ry * np.sin(a)) for a in angles], colour, label)


class _Ground:
    """The ground plane of the street, and the perspective that maps points of this plane to pixels.

    A point of the plane has two coordinates, t and across. t is 0 at the horizon and 1 at the lower edge of
    the photo, which is nearest to the camera. across is 0 in the middle of the road, -1 at the road's left
    kerb and 1 at its right kerb.
    """

    def __init__(self, rng):
        self.horizon = rng.randint(80, 130)  # y of the horizon in pixels
        self.vanishing = rng.randint(70, 186)  # x of the middle of the road at the horizon
        self.centre = rng.randint(60, 196)  # x of the middle of the road at the lower edge of the photo
        self.bend = rng.uniform(-90, 90) if rng.rand() < 0.5 else 0.0  # curvature; 0 for a straight road
        # half the width of the road grows from 2 pixels at the horizon to 2 + half_width pixels at the lower
        # edge of the photo
        self.half_width = rng.uniform(60, 200)
        self.pavement = rng.uniform(0.2, 0.7)  # width of a pavement divided by half the road's width
        self.asphalt = rng.uniform(60, 150) + rng.uniform(-9, 9, 3)  # RGB of the road

    def y(self, t):
        """Return the vertical pixel coordinate of the points with coordinate t."""
        return self.horizon + t * (SIZE - self.horizon)

    def x(self, t, across):
        """Return the horizontal pixel coordinate of the point (t, across)."""
        middle = self.vanishing + (self.centre - self.vanishing) * t + self.bend * t * (1 - t)
        return middle + across * (2 + self.half_width * t)

    def strip(self, left, right, far=0.0, near=1.0):
        """Return a polygon, a list of (x, y) in pixels, that covers a strip of the ground.

        left, right: the limits of the coordinate across. far, near: the limits of the coordinate t.
        """
        positions = np.linspace(far, near, 24)
        edge = [(self.x(t, left), self.y(t)) for t in positions]
        return edge + [(self.x(t, right), self.y(t)) for t in positions[::-1]]


def _grey(rng, low, high, tint=10):
    """Return a random RGB near grey: a level from low to high, changed by up to tint in each channel."""
    return rng.uniform(low, high) + rng.uniform(-tint, tint, 3)


def _sky(canvas, rng, ground):
    blue, cloud = np.array([90, 140, 215]), np.array([175, 175, 180])
    top = blue + (cloud - blue) * rng.uniform(0, 1) + rng.uniform(-35, 20)
    for y in range(ground.horizon + 1):
        canvas.box(0, y, SIZE, 1, top + 40 * y / ground.horizon, SKY)
    for _ in range(rng.randint(0, 5)):
        centre = rng.randint(0, SIZE), rng.randint(0, ground.horizon)
        canvas.ellipse(*centre, rng.randint(15, 60), rng.randint(4, 14), _grey(rng, 190, 235, 4))


def _houses(canvas, rng, ground):
    canvas.box(0, ground.horizon, SIZE, SIZE, _grass(rng), TERRAIN)
    for side in (-1, 1):
        edge = 0 if side < 0 else SIZE
        x = ground.vanishing + side * rng.randint(2, 25)
        while 0 < x < SIZE:
            depth = abs(x - ground.vanishing) / SIZE
            width = 12 + 110 * depth * rng.uniform(0.6, 1.2)
            height = 20 + 230 * depth * rng.uniform(0.5, 1.3)
            slope = 0.55 * rng.uniform(0.3, 0.6)
            # distance, in pixels, from the horizon down to the foot of the wall
            foot = slope * abs(x + side * width - ground.vanishing)
            if rng.rand() < 0.75:
                wall = _grey(rng, 60, 185, 18)
                left = min(x, x + side * width)
                canvas.box(left, ground.horizon - height, width, height + foot, wall, BUILDING)
                _windows(canvas, rng, left, ground.horizon - height, width, height, wall)
            else:
                middle = x + side * width / 2, ground.horizon - 10
                canvas.ellipse(*middle, width / 2, 14 + height / 3, _leaves(rng), VEGETATION)
            x += side * (width + rng.choice([0, 0, 6]))
        canvas.box(min(edge, x), ground.horizon - 4, abs(edge - x), 10, _leaves(rng), VEGETATION)


def _windows(canvas, rng, x, y, width, height, wall):
    """Draw windows on the wall from (x, y) to (x + width, y + height). wall: RGB of the wall."""
    colour = wall * rng.uniform(0.4, 0.8) if rng.rand() < 0.7 else wall + 45
    step = max(6, width / rng.randint(3, 6))
    for column in np.arange(x + step / 3, x + width - step / 2, step):
        for row in np.arange(y + step / 3, y + height - step / 2, step * 1.3):
            canvas.box(column, row, step * 0.45, step * 0.7, colour)


def _street(canvas, rng, ground):
    slabs = _grey(rng, 85, 175) if rng.rand() < 0.6 else ground.asphalt + rng.uniform(-6, 18)
    outer = 1 + ground.pavement
    canvas.polygon(ground.strip(-outer, outer), slabs, PAVEMENT)
    if rng.rand() < 0.3:  # a strip of grass along the outer edge of one pavement
        side = rng.choice([-1, 1])
        canvas.polygon(ground.strip(side * outer * 0.8, side * outer), _grass(rng), TERRAIN)
    canvas.polygon(ground.strip(-1.05, 1.05), slabs + rng.uniform(15, 45), PAVEMENT)  # kerb
    canvas.polygon(ground.strip(-1, 1), ground.asphalt, ROAD)
    paint = _grey(rng, 175, 235, 5)
    for line in [0.0] if rng.rand() < 0.6 else [-0.34, 0.34]:
        for t in np.arange(0.02, 1, 0.16) ** 1.6:
            canvas.polygon(ground.strip(line - 0.025, line + 0.025, t, t * 1.35 + 0.01), paint)
    if rng.rand() < 0.25:  # a crossing
        for across in np.arange(-0.9, 0.9, 0.25):
            canvas.polygon(ground.strip(across, across + 0.12, 0.45, 0.58), paint)
    for _ in range(rng.randint(0, 4)):  # patches of newer asphalt
        t, across = rng.uniform(0.1, 0.9), rng.uniform(-0.9, 0.5)
        patch = ground.strip(across, across + rng.uniform(0.1, 0.4), t, t + 0.1)
        canvas.polygon(patch, ground.asphalt * rng.uniform(0.75, 1.2))


def _car(canvas, rng, ground, t):
    across = rng.choice([-0.55, 0.5, -0.9, 0.9]) + rng.uniform(-0.1, 0.1)
    width, height = 4 + 75 * t, 3 + 46 * t
    x, y = ground.x(t, across) - width / 2, ground.y(t)
    body = _grey(rng, 30, 230, 8) if rng.rand() < 0.6 else rng.uniform(20, 220, 3)
    canvas.ellipse(x + width / 2, y, width * 0.62, height * 0.14, ground.asphalt * 0.45)
    canvas.box(x, y - height * 0.6, width, height * 0.52, body, CAR)
    roof = [(x + width * s, y - height * r) for s, r in ((0.1, 0.6), (0.22, 1), (0.78, 1), (0.9, 0.6))]
    canvas.polygon(roof, body * 0.9, CAR)
    canvas.box(x + width * 0.24, y - height * 0.92, width * 0.52, height * 0.28, body * 0.3 + 25)
    for wheel in (0.08, 0.74):
        canvas.box(x + width * wheel, y - height * 0.16, width * 0.18, height * 0.18, (25, 25, 28), CAR)
    for lamp in (0.05, 0.8):
        canvas.box(x + width * lamp, y - height * 0.48, width * 0.14, height * 0.12, (200, 60, 40))


def _tree(canvas, rng, ground, t):
    x, y, size = _beside(rng, ground, t), ground.y(t), 10 + 110 * t
    canvas.box(x - size * 0.04, y - size, size * 0.08 + 1, size, (80, 62, 48), VEGETATION)
    for _ in range(7):
        dx, dy = rng.uniform(-0.35, 0.35, 2) * size
        canvas.ellipse(x + dx, y - size * 1.15 + dy, size * 0.3, size * 0.26, _leaves(rng), VEGETATION)


def _lamp(canvas, rng, ground, t):
    x, y, height = _beside(rng, ground, t), ground.y(t), 14 + 150 * t
    canvas.box(x, y - height, 1 + 4 * t, height, _grey(rng, 70, 160), POLE)
    if rng.rand() < 0.5:
        side = 3 + 18 * t
        canvas.box(x - side / 2, y - height, side, side, rng.choice([40, 200], 3), SIGN)


def _person(canvas, rng, ground, t):
    x, y, height = _beside(rng, ground, t), ground.y(t), 5 + 70 * t
    canvas.box(x, y - height * 0.45, height * 0.2, height * 0.45, rng.uniform(20, 120, 3), PERSON)
    coat = rng.uniform(20, 220, 3)
    canvas.box(x - height * 0.03, y - height * 0.85, height * 0.26, height * 0.42, coat, PERSON)
    canvas.ellipse(x + height * 0.1, y - height * 0.92, height * 0.08, height * 0.1, (190, 150, 125), PERSON)


def _beside(rng, ground, t):
    """Return the x, in pixels, of a random point on a pavement or just outside of it.

    t: the point's t, see `_Ground`.
    """
    return ground.x(t, rng.choice([-1, 1]) * rng.uniform(1.1, 1.1 + ground.pavement))


def _leaves(rng):
    return np.array([60, 95, 45]) * rng.uniform(0.6, 1.4) + rng.uniform(-12, 12, 3)


def _grass(rng):
    return np.array([110, 125, 75]) * rng.uniform(0.7, 1.3)


def _photograph(canvas, rng, ground):
    """Return the canvas's photo with camera effects: uint8 [256, 256, 3].

    The effects are shadows, lens blur, texture, haze, exposure, white balance and noise.
    """
    light = Image.new("L", (SIZE, SIZE), 255)
    draw = ImageDraw.Draw(light)
    for _ in range(rng.randint(0, 4)):  # shadows of objects outside the photo
        t, depth = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.3)
        left, right = np.sort(rng.uniform(-2, 2, 2))
        shadow = ground.strip(left, right, t, min(1, t + depth))
        draw.polygon([(int(x), int(y)) for x, y in shadow], fill=int(rng.uniform(110, 190)))
    light = np.asarray(light.filter(ImageFilter.GaussianBlur(2)), np.float32)[..., None] / 255
    coarse = Image.fromarray(rng.randint(0, 256, (24, 24)).astype(np.uint8))
    texture = np.asarray(coarse.resize((SIZE, SIZE), Image.BICUBIC), np.float32)[..., None] - 128
    photo = np.asarray(canvas.photo.filter(ImageFilter.GaussianBlur(0.7)), np.float32) * light
    photo += texture * rng.uniform(0.05, 0.2)
    haze = np.exp(-np.abs(np.arange(SIZE) - ground.horizon) / 25)[:, None, None]  # densest at the horizon
    photo += (190 - photo) * haze * rng.uniform(0, 0.35)
    photo = photo * rng.uniform(0.65, 1.2) * rng.uniform(0.93, 1.07, 3)  # exposure, white balance
    photo += rng.normal(0, rng.uniform(3, 9), photo.shape)
    return photo.clip(0, 255).astype(np.uint8)
