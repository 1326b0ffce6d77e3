"""Every kind of image file is read as it is meant, or refused in one sentence."""

import errno
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from core.data.images import map_rgb, read_class_ids, read_rgb
from core.data.listing import image_files
from core.runtime.errors import InputError

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


def test_modes_become_rgb(tmp_path):
    grey = np.stack([GREY] * 3, axis=-1)
    cases = {
        "grey.png": (Image.fromarray(GREY), grey),
        "sixteen bits.png": (Image.fromarray(GREY.astype(np.uint16) * 257), grey),
        "umlaut-ä.png": (Image.fromarray(COLOUR), COLOUR),
        "alpha.png": (Image.fromarray(np.dstack([COLOUR, GREY])), COLOUR),
        "palette.gif": (Image.fromarray(COLOUR).quantize(), None),
        "cmyk.jpg": (Image.fromarray(COLOUR).convert("CMYK"), None),
        "png called.jpg": (Image.fromarray(COLOUR), COLOUR),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name, "PNG" if "called" in name else None)
        read = read_rgb(tmp_path / name)
        assert (read.mode, read.size) == ("RGB", (8, 6)), name
        if expected is not None:
            np.testing.assert_array_equal(read, expected, err_msg=name)


def test_plain_rgb_files_are_mapped_and_no_others(tmp_path):
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
    """A TIFF of the upper left part of one tile, uint8 [H, W, 3]."""
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 277: 3}  # size, bits, plain, RGB, samples
    entries |= {322: tile.shape[1], 323: tile.shape[0], 324: 8 + 2 + 10 * 12 + 4, 325: tile.nbytes}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + tile.tobytes()


def test_exif_rotation_is_undone(tmp_path):
    upright = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise to view
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "turned.png"), COLOUR)


def encoded(kind, size=(64, 64)):
    file = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def bomb():
    """A PNG whose header claims 30,000 x 30,000 pixels."""
    head = b"IHDR" + (30000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return encoded("PNG")[:12] + head + zlib.crc32(head).to_bytes(4, "big") + encoded("PNG")[33:]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image at all",
        encoded("JPEG")[:700],
        encoded("PNG")[:3000],
        encoded("PNG")[:200] + b"\0" * 400 + encoded("PNG")[600:],
        bomb(),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG", "holed PNG", "bomb"],
)
def test_damaged_files_are_named_in_one_sentence(tmp_path, content):
    path = tmp_path / "some picture.jpg"
    path.write_bytes(content)
    for read in (read_rgb, read_class_ids):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [MemoryError(), OSError(errno.EMFILE, "Too many open files")], ids=repr)
def test_a_fault_of_the_machine_is_none_of_the_file(tmp_path, monkeypatch, fault):
    Image.fromarray(COLOUR).save(tmp_path / "good.png")

    def fail(image):
        raise fault

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(type(fault)):
        read_rgb(tmp_path / "good.png")


def test_another_kind_of_image_is_told_what_may_be(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "photo.tga")
    with pytest.raises(InputError, match="photo.tga: not a readable image .none of JPEG, PNG, .*PPM"):
        read_rgb(tmp_path / "photo.tga")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.jpg"):
        read_rgb(tmp_path / "gone.jpg")


def test_class_ids_are_the_numbers_in_the_file(tmp_path):
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


def test_files_are_listed_in_natural_order_without_hidden_ones(tmp_path):
    for name in ("10.jpg", "2.jpg", "1.JPG", ".hidden.jpg", "Thumbs.db", "._2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path, (".jpg",))] == ["1.JPG", "2.jpg", "10.jpg"]
    with pytest.raises(InputError, match="nowhere"):
        image_files(tmp_path / "nowhere", (".jpg",))
