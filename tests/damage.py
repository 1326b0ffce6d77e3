"""Damages and damaged image files, for the tests of bad input.

A damage is a function (path) that overwrites or replaces the file at the path.
"""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

from PIL import Image


def overwrite(data):
    """Return a function (path) that overwrites the file with the bytes `data`."""
    return lambda path: path.write_bytes(data)


def cut(start, end):
    """Return a function (path) that keeps only the bytes between two fractions of the file's length."""

    def damage(path):
        data = path.read_bytes()
        path.write_bytes(data[int(start * len(data)) : int(end * len(data))])

    return damage


def replace_by(make):
    """Return a function (path) that deletes the file or folder at the path and then calls make(path)."""

    def damage(path):
        delete(path)
        make(path)

    return damage


def delete(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


NOT_FILES = {
    "a folder": replace_by(Path.mkdir),
    "a pipe": replace_by(os.mkfifo),
    "a link to itself": replace_by(lambda path: path.symlink_to(path)),
    "a link to nothing": replace_by(lambda path: path.symlink_to("nowhere")),
    "a link to a device": replace_by(lambda path: path.symlink_to("/dev/zero")),
}


def encoded(image, kind, **options):
    """Return the bytes of a file that holds a PIL image.

    kind: Pillow's name of the file format, such as "PNG". options: arguments of Pillow's save.
    """
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows=b"", *, depth=8, extra=b""):
    """Return the bytes of a greyscale PNG file whose header claims a size of width x height pixels.

    rows: the pixel data before compression: for each row of pixels, a filter byte 0 and then the pixels.
    depth: bits per pixel. extra: the bytes of chunks between the header and the pixel data.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def tiff(width, height):
    """Return the bytes of a TIFF file that claims width x height pixels but ends with 68 zero bytes."""
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(68)


BLACK_ROWS = bytes(32 * 33)  # 32x32 pixels for `png`
# 4 MiB compressed to a few kB, for PNG texts and colour profiles
BOMB = b"a\0\0" + zlib.compress(bytes(2**22))
# a program that never ends
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n{} loop\n"
HUGE_IMAGES = {
    "PNG of 60000x60000": overwrite(png(60000, 60000)),
    "PNG of 2147483647x2147483647": overwrite(png(2**31 - 1, 2**31 - 1)),
    "TIFF of 60000x60000": overwrite(tiff(60000, 60000)),
    "PPM of 99999x99999": overwrite(b"P6 99999 99999 255\n"),
}
DAMAGED_IMAGES = {
    "empty": overwrite(b""),
    "text": overwrite(b"not an image at all"),
    "a PostScript program": overwrite(POSTSCRIPT),
    "its header": cut(0, 0.05),
    "its second half": cut(0.5, 1),
    "PNG of 0x0": overwrite(png(0, 0)),
    "TIFF of 0x0": overwrite(tiff(0, 0)),
    "PPM of -1x-1": overwrite(b"P6 -1 -1 255\n"),
    "PNG of 9400x9400 without pixels": overwrite(png(9400, 9400)),
    "PNG without its last checksum": overwrite(png(32, 32, BLACK_ROWS)[:-16]),
    "PNG with a text bomb": overwrite(png(32, 32, BLACK_ROWS, extra=png_chunk(b"zTXt", BOMB))),
    "PNG with a profile bomb": overwrite(png(32, 32, BLACK_ROWS, extra=png_chunk(b"iCCP", BOMB))),
    "32-bit integers": overwrite(encoded(Image.new("I", (32, 32), 70000), "TIFF")),
    "32-bit floats": overwrite(encoded(Image.new("F", (32, 32), 0.5), "TIFF")),
}
