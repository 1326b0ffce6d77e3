"""Write PNG files (ISO/IEC 15948) strip by strip, because Pillow can write only a whole image at once.

A strip is a block of consecutive rows.
"""

import contextlib
import struct
import zlib

import numpy as np
from PIL import Image

from core.runtime import files

GREY, RGB, PALETTE = 0, 2, 3  # codes of the colour types in the PNG standard
SOFTWARE = "raw-unet predict"  # `writer` stores this text in each file, under "Software"; `is_ours` checks it


@contextlib.contextmanager
def writer(path, width, height, *, colour, palette=(), bits=8):
    """Context manager that creates a PNG file and yields a function that appends a strip to the file.

    width, height: the size of the image in pixels. The strips must have `height` rows in total.
    colour: GREY, RGB or PALETTE. For RGB, a strip is an array [rows, width, 3]. Otherwise it is an array
    [rows, width], which for PALETTE holds indices into the palette.
    palette: only for PALETTE: a list of colours (red, green, blue), 0..255.
    bits: bits per sample. 8: strips are uint8. 16: strips are uint16, and colour must be GREY.
    Until the block ends, the rows are in a temporary file. Then the file appears at path.
    Raises InputError if the file cannot be written.
    """
    compressor = zlib.compressobj(1)
    with files.atomic(path) as file:

        def chunk(kind, data):
            """Write a PNG chunk. kind: the chunk type, four bytes. data: the content of the chunk, bytes."""
            checksum = zlib.crc32(kind + data)
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))

        def append(rows):
            """Append a strip to the file. rows: the strip, see `writer`."""
            data = compressor.compress(_filtered(rows, colour, bits))
            if data:
                chunk(b"IDAT", data)

        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        chunk(b"tEXt", b"Software\0" + SOFTWARE.encode("latin-1"))
        if colour == PALETTE:
            chunk(b"PLTE", np.array(palette, np.uint8).tobytes())
        yield append
        chunk(b"IDAT", compressor.flush())
        chunk(b"IEND", b"")


def is_ours(path):
    """True if the file at path is a PNG file that `writer` created."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == SOFTWARE
    except Exception:  # the file is damaged or not a PNG file; decoding it later reports the error
        return False


def _filtered(rows, colour, bits):
    """Return the rows of a strip as bytes, filtered as PNG requires: uint8 [rows, 1 + bytes per row].

    rows: a strip. colour, bits: as for `writer`. The first byte of each returned row is the filter type. For
    RGB, each pixel is stored as the difference from the pixel to its left, which compresses better.
    """
    data = rows.astype(">u2").view(np.uint8) if bits == 16 else rows
    data = data.reshape(len(rows), -1)
    filtered = np.empty([len(data), 1 + data.shape[1]], np.uint8)
    filtered[:, 0] = colour == RGB  # PNG filter type: 1 ("Sub") for RGB, otherwise 0 ("None")
    filtered[:, 1:] = data
    if colour == RGB:
        filtered[:, 4:] -= data[:, :-3]
    return filtered
