"""Photos of many formats become 8-bit RGB, masks become class ids, and unusual files give a remark."""

import errno
import functools
import struct

import numpy as np
import pytest
import tensorflow as tf
from conftest import refused
from PIL import Image, PngImagePlugin
from PIL.ExifTags import Base as Tag

from core.data import remarks
from core.data.images import map_rgb, pages, read_class_ids, read_rgb, require_same_size
from core.data.listing import image_files
from core.runtime.errors import InputError

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


def test_only_uncompressed_rgb_files_are_memory_mapped(tmp_path):
    photo = Image.fromarray(COLOUR)
    photo.save(tmp_path / "a.ppm")
    photo.save(tmp_path / "b.tif")
    photo.resize((80, 600)).save(tmp_path / "strips.tif", strip_size=80 * 3 * 7)
    for name in ("a.ppm", "b.tif", "strips.tif"):
        np.testing.assert_array_equal(map_rgb(tmp_path / name), Image.open(tmp_path / name), name)
    photo.save(tmp_path / "c.png")
    photo.save(tmp_path / "d.bmp")
    photo.save(tmp_path / "packed.tif", compression="tiff_lzw")
    photo.convert("L").save(tmp_path / "grey.tif")
    photo.convert("CMYK").save(tmp_path / "cmyk.tif")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(tmp_path / "turned.tif", exif=turned)
    tile = np.resize(COLOUR, (16, 16, 3))
    (tmp_path / "tiled.tif").write_bytes(tiled_tiff(tile, 8, 6))
    np.testing.assert_array_equal(Image.open(tmp_path / "tiled.tif"), tile[:6, :8])
    (tmp_path / "cut.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:-1])
    (tmp_path / "text.tif").write_text("hello")
    others = ("c.png", "d.bmp", "packed.tif", "grey.tif", "cmyk.tif", "turned.tif", "tiled.tif", "cut.ppm")
    for name in (*others, "text.tif"):
        assert map_rgb(tmp_path / name) is None, name


def tiled_tiff(tile, width, height):
    """Return the bytes of a TIFF file with one tile. The image is the upper left part of this tile.

    tile: uint8 [H, W, 3]. width, height: the size of the image.
    """
    # the tags: width, height, bits per sample, no compression, RGB, samples per pixel
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 277: 3}
    entries |= {322: tile.shape[1], 323: tile.shape[0], 324: 8 + 2 + 10 * 12 + 4, 325: tile.nbytes}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + tile.tobytes()


def test_exif_rotation_is_undone(tmp_path):
    upright = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn the image clockwise by 90 degrees
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "turned.png"), COLOUR)


@pytest.mark.parametrize("fault", [MemoryError(), OSError(errno.EMFILE, "Too many open files")], ids=repr)
def test_memory_and_disk_errors_are_not_reported_as_damaged_files(tmp_path, monkeypatch, fault):
    Image.fromarray(COLOUR).save(tmp_path / "good.png")

    def fail(image):
        raise fault

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(type(fault)):
        read_rgb(tmp_path / "good.png")


def test_the_message_for_an_unknown_format_lists_the_known_formats(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "photo.tga")
    with pytest.raises(
        InputError, match="photo.tga: not a readable image .its format is none of JPEG, PNG, .*PPM"
    ):
        read_rgb(tmp_path / "photo.tga")


def test_class_ids_are_the_stored_numbers(tmp_path):
    ids = GREY % 7
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_class_ids(tmp_path / "grey.png"), ids)
    np.testing.assert_array_equal(read_class_ids(tmp_path / "palette.png"), ids)
    Image.fromarray(COLOUR).save(tmp_path / "colours.png")
    with pytest.raises(InputError, match="colours.png"):
        read_class_ids(tmp_path / "colours.png")
    exif = Image.Exif()
    exif[Tag.Orientation] = 6
    Image.fromarray(ids).rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_class_ids(tmp_path / "turned.png"), ids)


def test_files_are_listed_in_natural_order_without_hidden_ones(tmp_path):
    for name in ("10.jpg", "2.jpg", "1.JPG", ".hidden.jpg", "Thumbs.db", "._2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["1.JPG", "2.jpg", "10.jpg"]
    with pytest.raises(InputError, match="nowhere"):
        image_files(tmp_path / "nowhere")


# --- 16 bits per sample


def write_tiff(path, samples, *, photometric=1, order="<", sample_format=1, orientation=1):
    """Write an uncompressed TIFF file of samples [H, W] or [H, W, bands].

    order: "<" for little-endian, ">" for big-endian. sample_format: 1: unsigned, 2: signed, 3: float.
    photometric, orientation: the values of the TIFF tags with these names.
    """
    height, width = samples.shape[:2]
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    # after the end of the directory follow the bits and the format of each band, then the pixels
    end = 8 + 2 + 11 * 12 + 4
    bits, formats = [8 * samples.dtype.itemsize] * bands, [sample_format] * bands
    tail_size = 4 * bands if bands > 2 else 0
    entries = {256: [width], 257: [height], 258: bits, 259: [1], 262: [photometric], 273: [end + tail_size]}
    entries |= {274: [orientation], 277: [bands], 278: [height], 279: [len(data)], 339: formats}
    directory, tail = struct.pack(f"{order}H", len(entries)), b""
    for tag, values in entries.items():
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            packed, tail = struct.pack(f"{order}I", end + len(tail)), tail + packed
        directory += struct.pack(f"{order}HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    path.write_bytes(head + directory + bytes(4) + tail + data)


def write_png16(path, samples):
    path.write_bytes(tf.io.encode_png(samples.reshape(*samples.shape[:2], -1)).numpy())


def write_pgm12(path, samples):
    """Write a binary PGM file whose header says that white is 4095."""
    path.write_bytes(b"P5 %d %d 4095\n" % samples.shape[::-1] + samples.astype(">u2").tobytes())


def write_plain_pgm12(path, samples):
    """Write a PGM file of text whose header says that white is 4095."""
    path.write_text(f"P2 {samples.shape[1]} {samples.shape[0]} 4095\n{' '.join(map(str, samples.flat))}\n")


write_rgb_tiff = functools.partial(write_tiff, photometric=2)
write_inverted_tiff = functools.partial(write_tiff, photometric=0)
write_big_endian_tiff = functools.partial(write_tiff, photometric=2, order=">")
RGB16, GREY16 = COLOUR.astype(np.uint16), GREY.astype(np.uint16)
# an 8-bit image, the same image with more bits, the function that writes it, and the white level
SIXTEEN_BITS = {
    "RGB PNG, 12 bits": (COLOUR, RGB16 * 16, write_png16, 4095),
    "RGB TIFF, 11 bits": (COLOUR, RGB16 * 8, write_rgb_tiff, 2047),
    "RGB TIFF, big endian": (COLOUR, RGB16 * 257, write_big_endian_tiff, 65535),
    "grey PNG, 12 bits": (GREY, GREY16 * 16, write_png16, 4095),
    "grey PGM, 12 bits": (GREY, GREY16 * 16, write_pgm12, 4095),
    "grey PGM of text, 12 bits": (GREY, GREY16 * 16, write_plain_pgm12, 4095),
    "grey PGM": (GREY, GREY16 * 257, lambda path, samples: Image.fromarray(samples).save(path, "PPM"), 65535),
    "grey TIFF": (GREY, GREY16 * 257, write_tiff, 65535),
    "grey TIFF, 0 is white": (GREY, (255 - GREY16) * 257, write_inverted_tiff, 65535),
}


@pytest.mark.parametrize("expected, samples, write, white", SIXTEEN_BITS.values(), ids=SIXTEEN_BITS)
def test_16_bit_photos_equal_the_8_bit_photo_within_rounding(tmp_path, expected, samples, write, white):
    path = tmp_path / "photo.image"
    write(path, samples)
    rgb = np.asarray(Image.fromarray(expected).convert("RGB")).astype(int)
    with remarks.collect() as found:
        detected = np.asarray(read_rgb(path)).astype(int)
    assert np.abs(detected - rgb).max() <= 1
    if white == 65535 or write in (write_pgm12, write_plain_pgm12):
        assert not found
    else:
        ((_, sentence),) = found
        assert str(path) in sentence and str(samples.max()) in sentence and str(white) in sentence
    with remarks.collect() as found:
        np.testing.assert_array_equal(read_rgb(path, white_level=white), detected)
    assert not found


def test_the_white_level_decides_the_brightness(tmp_path):
    path = tmp_path / "dark.png"
    write_png16(path, np.full((2, 2), 500, np.uint16))
    values = [np.asarray(read_rgb(path, white_level=white))[0, 0, 0] for white in (500, 1000, 400)]
    assert values == [255, 128, 255]  # samples above the white level are clipped


def test_signed_and_32_bit_samples_need_a_white_level(tmp_path):
    path = tmp_path / "photo.tif"
    write_tiff(path, np.array([[0, 0.5]], np.float32), sample_format=3)
    with refused("--white_level"):
        read_rgb(path)
    write_tiff(path, np.array([[-5, 500, 2000]], np.int16), sample_format=2)
    with refused("--white_level"):
        read_rgb(path)
    assert np.asarray(read_rgb(path, white_level=1000))[0, :, 0].tolist() == [0, 128, 255]


def test_a_16_bit_photo_is_rotated_once_by_its_exif_orientation(tmp_path):
    write_tiff(tmp_path / "photo.tif", np.rot90(RGB16, 1) * 257, photometric=2, orientation=6)
    np.testing.assert_array_equal(read_rgb(tmp_path / "photo.tif"), COLOUR)


# --- TIFF pages, unusual TIFFs, orientation


def test_pages_are_counted_without_reduced_copies(tmp_path):
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    assert pages(tmp_path / "two.tif") == [0, 1]
    np.testing.assert_array_equal(read_rgb(tmp_path / "two.tif", page=1), second)
    with remarks.collect() as found:
        np.testing.assert_array_equal(read_rgb(tmp_path / "two.tif"), first)
    assert "only the first of its 2 pages" in found[0][1]
    second.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "overview.tif", save_all=True, append_images=[second])
    with remarks.collect() as found:
        read_rgb(tmp_path / "overview.tif")
    assert pages(tmp_path / "overview.tif") == [0] and not found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_reduced_copy_before_the_photo_is_not_read(tmp_path, dtype):
    thumbnail, photo = Image.fromarray(GREY.astype(dtype)), Image.fromarray((255 - GREY).astype(dtype) * 7)
    photo.encoderinfo = {"tiffinfo": {254: 0}}
    thumbnail.save(tmp_path / "a.tif", save_all=True, append_images=[photo], tiffinfo={254: 1})
    with remarks.collect() as found:
        read = read_rgb(tmp_path / "a.tif", white_level=1785 if dtype == np.uint16 else 0)
    assert pages(tmp_path / "a.tif") == [1] and not found
    expected = (255 - GREY) if dtype == np.uint16 else (255 - GREY) * np.uint8(7)
    np.testing.assert_array_equal(np.asarray(read)[..., 0], expected)


def test_extra_bands_give_a_remark(tmp_path):
    bands = np.dstack([COLOUR, 255 - 0 * GREY])
    for mode in ("RGBX", "RGBA"):  # a TIFF file of mode RGBX declares that its fourth band is not alpha
        Image.frombytes(mode, (8, 6), bands.tobytes()).save(tmp_path / f"{mode}.tif")
    with remarks.collect() as found:
        for mode in ("RGBX", "RGBA"):
            np.testing.assert_array_equal(read_rgb(tmp_path / f"{mode}.tif"), COLOUR)
    assert remarks.summary(found) == [f"{tmp_path / 'RGBX.tif'}: only the first 3 of its 4 bands are used"]


def test_transparent_pixels_give_a_remark(tmp_path):
    for name, alpha in (("opaque", 255), ("clear", 0)):
        Image.fromarray(np.dstack([COLOUR, 0 * GREY + alpha])).save(tmp_path / f"{name}.png")
    with remarks.collect() as found:
        for name in ("opaque", "clear"):
            read_rgb(tmp_path / f"{name}.png")
    told = f"{tmp_path / 'clear.png'}: the colours of its transparent pixels are used too"
    assert remarks.summary(found) == [told]


def test_the_message_for_an_unsupported_tiff_describes_its_layout(tmp_path):
    write_tiff(tmp_path / "bands.tif", np.zeros((2, 2, 5), np.uint8))
    with pytest.raises(InputError, match="bands.tif: .*a TIFF of 5 bands with 8-bit unsigned samples"):
        read_rgb(tmp_path / "bands.tif")
    write_tiff(tmp_path / "double.tif", np.zeros((2, 2)), sample_format=3)
    with pytest.raises(InputError, match="double.tif: .*1 bands with 64-bit floating-point samples"):
        read_rgb(tmp_path / "double.tif")


def test_the_message_explains_a_mask_that_only_fits_the_unrotated_photo(tmp_path):
    exif = Image.Exif()
    for orientation in (0, 6):  # 0 is invalid and has no effect
        exif[Tag.Orientation] = orientation
        Image.fromarray(COLOUR).save(tmp_path / "photo.jpg", exif=exif)
        with remarks.collect() as found:
            photo = read_rgb(tmp_path / "photo.jpg")
        assert bool(found) == bool(orientation)
    assert photo.size == (6, 8) and "EXIF orientation" in found[0][1]
    with pytest.raises(InputError, match="mask.png: 8x6 pixels, but its photo has 6x8 because its EXIF"):
        require_same_size(photo, Image.new("L", (8, 6)), "mask.png")
