"""PNG files (ISO/IEC 15948) written in strips; Pillow can only write a whole image at once."""

import contextlib
import struct
import zlib

import numpy as np
from PIL import Image

from core.runtime import files

GREY, RGB, PALETTE = 0, 2, 3  # the standard's colour types
# the value of the text chunk "Software", which identifies files written by this module
SOFTWARE = "raw-unet predict"


@contextlib.contextmanager
def writer(path, width, height, *, colour, palette=(), bits=8):
    """Context manager that yields a function to append rows [h, width], or [h, width, 3] for RGB.

    colour: GREY, RGB or PALETTE. palette: RGB of each index, 0..255. bits: 8 for uint8 rows; 16,
    for GREY only, for uint16 rows. The file appears only when it is complete: when the block ends
    after `height` rows. Raises InputError if the file cannot be written.
    """
    compressor = zlib.compressobj(1)
    with files.atomic(path) as file:

        def chunk(kind, data):
            checksum = zlib.crc32(kind + data)
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))

        def append(rows):
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
    """True if a PNG file was written by `writer`."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == SOFTWARE
    except Exception:  # not a PNG file, or a damaged one; decoding reports the error
        return False


def _filtered(rows, colour, bits):
    """Return filtered rows, uint8 [h, 1 + bytes]; RGB pixels become differences from their left neighbour."""
    data = rows.astype(">u2").view(np.uint8) if bits == 16 else rows
    data = data.reshape(len(rows), -1)
    filtered = np.empty([len(data), 1 + data.shape[1]], np.uint8)
    filtered[:, 0] = colour == RGB  # PNG filter type: 1 ("Sub") for RGB, otherwise 0 ("None")
    filtered[:, 1:] = data
    if colour == RGB:
        filtered[:, 4:] -= data[:, :-3]
    return filtered
