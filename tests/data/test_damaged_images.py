"""Image files of every kind are read correctly or refused in one sentence that names the file."""

import struct

import numpy as np
import pytest
from conftest import assert_one_sentence, refused
from damage import DAMAGED_IMAGES, HUGE_IMAGES, NOT_FILES, encoded, png
from PIL import Image, ImageFile

from core.data import images
from core.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("limits")
SIDE = 32
PHOTO = Image.fromarray(np.random.RandomState(7).randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
CLASS_IDS = 1 + np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE) % 3
MASK = Image.fromarray(CLASS_IDS)
PALETTE_MASK = MASK.convert("P")
FILES = {  # name of a kind of file -> its content, and the function that reads it
    "JPEG photo": (encoded(PHOTO, "JPEG", quality=90), images.read_rgb),
    "PNG photo": (encoded(PHOTO, "PNG"), images.read_rgb),
    "PNG mask": (encoded(MASK, "PNG"), images.read_class_ids),
}
ALL_DAMAGES = NOT_FILES | HUGE_IMAGES | DAMAGED_IMAGES
every_file = pytest.mark.parametrize("data, read", FILES.values(), ids=FILES)


@every_file
@pytest.mark.parametrize("damage", ALL_DAMAGES.values(), ids=ALL_DAMAGES)
def test_a_damaged_file_is_refused(tmp_path, data, read, damage):
    path = tmp_path / "1.png"
    path.write_bytes(data)
    damage(path)
    with refused(path):
        read(path)


@pytest.mark.parametrize("damage", HUGE_IMAGES.values(), ids=HUGE_IMAGES)
def test_an_image_with_too_many_pixels_is_not_decoded(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    path = tmp_path / "1.png"
    damage(path)
    assert images.map_rgb(path) is None
    with refused(path):
        images.read_rgb(path, max_pixels=2**29)


def read_or_refuse(read, path):
    """Return read(path) as an array, or None if read(path) raises an InputError.

    The message of the InputError must be one sentence that contains the path.
    """
    try:
        return np.asarray(read(path))
    except InputError as error:
        assert_one_sentence(str(error), path)


@every_file
def test_a_truncated_file_is_refused_or_gives_the_same_pixels(tmp_path, data, read):
    path = tmp_path / "1.png"
    path.write_bytes(data)
    whole = read_or_refuse(read, path)
    for length in [*range(0, len(data), len(data) // 30), len(data) - 1]:
        path.write_bytes(data[:length])
        pixels = read_or_refuse(read, path)
        assert pixels is None or np.array_equal(pixels, whole)


@every_file
def test_a_file_with_a_flipped_bit_is_refused_or_gives_the_same_pixels(tmp_path, data, read):
    """A damaged JPEG file may give other pixels, because JPEG has no checksum, but must give uint8 RGB."""
    path = tmp_path / "1.png"
    path.write_bytes(data)
    whole = read_or_refuse(read, path)
    for position in [*range(40), *range(40, len(data), len(data) // 40)]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        pixels = read_or_refuse(read, path)
        if pixels is not None and data == FILES["JPEG photo"][0]:
            assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)
        else:
            assert pixels is None or np.array_equal(pixels, whole)


PHOTOS = {  # a PIL image, the format of its file, and options for Pillow's save
    "black and white": (PHOTO.convert("1"), "PNG", {}),
    "grey": (PHOTO.convert("L"), "PNG", {}),
    "colour with alpha": (Image.merge("RGBA", (*PHOTO.split(), PHOTO.convert("L"))), "PNG", {}),
    "grey with alpha": (PHOTO.convert("LA"), "PNG", {}),
    "palette": (PHOTO.quantize(), "PNG", {}),
    "CMYK": (PHOTO.convert("CMYK"), "TIFF", {}),
    "BMP": (PHOTO, "BMP", {}),
    "LZW-compressed TIFF": (PHOTO, "TIFF", {"compression": "tiff_lzw"}),
    "lossless WebP": (PHOTO, "WEBP", {"lossless": True}),
    "TIFF of two pages": (PHOTO, "TIFF", {"save_all": True, "append_images": [PHOTO.convert("L")]}),
    "animated PNG": (PHOTO, "PNG", {"save_all": True, "append_images": [PHOTO.convert("L")]}),
    "corrupt EXIF block": (PHOTO, "PNG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\xff\xff"}),
}


# `core.data.images` hides this warning, but pytest shows it
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("photo, kind, options", PHOTOS.values(), ids=PHOTOS)
def test_photos_of_other_formats_are_read_as_rgb(tmp_path, photo, kind, options):
    (tmp_path / "1.jpg").write_bytes(encoded(photo, kind, **options))
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "1.jpg"), photo.convert("RGB"))


def test_a_bmp_file_of_16_bits_per_pixel_is_read(tmp_path):
    """Each pixel has 5 bits of red, 6 bits of green and 5 bits of blue."""
    pixels = struct.pack("<2H", 0b11111_000000_00000, 0b00000_111111_11111)
    masks = struct.pack("<3I", 0b11111_000000_00000, 0b111111_00000, 0b11111)
    header = struct.pack("<I2i2H6I", 40, 2, 1, 1, 16, 3, len(pixels), 0, 0, 0, 0) + masks
    start = struct.pack("<2sI2HI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header))
    (tmp_path / "1.bmp").write_bytes(start + header + pixels)
    assert np.asarray(images.read_rgb(tmp_path / "1.bmp")).tolist() == [[[255, 0, 0], [0, 255, 255]]]


def packed_rows(ids, depth):
    """Return class ids uint8 [H, W] as bytes, in the format of the argument `rows` of `png`.

    depth: the number of bits per pixel, 2 or 4.
    """
    bits = np.unpackbits(ids[..., None], axis=-1)[..., -depth:].reshape(len(ids), -1)
    return b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=-1))


MASKS = {
    "palette of 2 bits": encoded(PALETTE_MASK, "PNG", bits=2),
    "2 bits": png(SIDE, SIDE, packed_rows(CLASS_IDS, 2), depth=2),
    "4 bits": png(SIDE, SIDE, packed_rows(CLASS_IDS, 4), depth=4),
    "16 bits": encoded(Image.fromarray(CLASS_IDS.astype(np.uint16)), "PNG"),
    "animated": encoded(MASK, "PNG", save_all=True, append_images=[Image.new("L", MASK.size)]),
    "text after the image": encoded(MASK, "PNG") + b"and more",
}
NOT_MASKS = {
    "RGBA": encoded(MASK.convert("RGBA"), "PNG"),
    "grey with alpha": encoded(MASK.convert("LA"), "PNG"),
    "1 bit": encoded(MASK.convert("1"), "PNG"),
    "an id above 255": encoded(Image.fromarray(CLASS_IDS.astype(np.uint16) + 255), "PNG"),
    "JPEG": encoded(MASK, "JPEG", quality=100),
    "TIFF": encoded(MASK, "TIFF"),
}


@pytest.mark.parametrize("data", MASKS.values(), ids=MASKS)
def test_masks_of_other_png_types_have_the_same_class_ids(tmp_path, data):
    (tmp_path / "1.png").write_bytes(data)
    np.testing.assert_array_equal(images.read_class_ids(tmp_path / "1.png"), CLASS_IDS)


@pytest.mark.parametrize("data", NOT_MASKS.values(), ids=NOT_MASKS)
def test_files_that_do_not_hold_8_bit_class_ids_are_refused(tmp_path, data):
    (tmp_path / "1.png").write_bytes(data)
    with refused(tmp_path / "1.png"):
        images.read_class_ids(tmp_path / "1.png")
