"""PNG files written by the strip, read back by Pillow."""

import numpy as np
import pytest
from PIL import Image

from core.inference import png
from core.runtime.errors import InputError


@pytest.mark.parametrize("strip", [1, 7, 40])
def test_pillow_reads_what_was_written_by_the_strip(tmp_path, strip):
    rng = np.random.RandomState(0)
    numbers, colours = (rng.randint(0, 256, shape).astype(np.uint8) for shape in ((40, 33), (40, 33, 3)))
    palette = rng.randint(0, 256, (256, 3)).astype(np.uint8)
    for name, kind, pixels in (
        ("grey", png.GREY, numbers),
        ("rgb", png.RGB, colours),
        ("palette", png.PALETTE, numbers),
    ):
        path = tmp_path / f"{name}.png"
        with png.writer(path, 33, 40, colour=kind, palette=palette) as append:
            for top in range(0, 40, strip):
                append(pixels[top : top + strip])
        image = Image.open(path)
        np.testing.assert_array_equal(image, pixels, name)
        if kind == png.PALETTE:
            np.testing.assert_array_equal(image.convert("RGB"), palette[pixels])


def test_a_picture_that_was_not_finished_is_not_there(tmp_path):
    with pytest.raises(InputError), png.writer(tmp_path / "a.png", 4, 4, colour=png.GREY) as append:
        append(np.zeros([2, 4], np.uint8))
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
