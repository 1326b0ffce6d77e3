"""Pillow reads the PNG files that `core.inference.png` writes in strips."""

import numpy as np
import pytest
from PIL import Image

from core.inference import png


@pytest.mark.parametrize("strip", [1, 7, 40])
def test_pillow_reads_the_pixels_that_were_written_in_strips(tmp_path, strip):
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
        assert png.is_ours(path)
        np.testing.assert_array_equal(image, pixels, name)
        if kind == png.PALETTE:
            np.testing.assert_array_equal(image.convert("RGB"), palette[pixels])


def test_pillow_reads_16_bit_greyscale(tmp_path):
    values = np.random.RandomState(0).randint(0, 2**16, (9, 5)).astype(np.uint16)
    with png.writer(tmp_path / "a.png", 5, 9, colour=png.GREY, bits=16) as append:
        append(values[:4])
        append(values[4:])
    np.testing.assert_array_equal(Image.open(tmp_path / "a.png"), values)
    Image.fromarray(values).save(tmp_path / "other.png")
    assert png.is_ours(tmp_path / "a.png") and not png.is_ours(tmp_path / "other.png")
