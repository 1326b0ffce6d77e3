"""PNG files written strip by strip: Pillow writes them from a whole image alone.

ISO/IEC 15948. Colours use filter 1 (difference to the pixel on the left), numbers
none.
"""

import contextlib
import struct
import zlib

import numpy as np

from core.runtime import files

GREY, RGB, PALETTE = 0, 2, 3  # the standard's colour types


@contextlib.contextmanager
def writer(path, width, height, *, colour, palette=()):
    """A function that appends rows, uint8 [h, width] or [h, width, 3], to a PNG at path.

    colour: GREY, RGB or PALETTE; palette: RGB of each number, 0..255. The file is
    there, whole, when the block ends and `height` rows were given. Raises InputError
    where it cannot be written.
    """
    compressor = zlib.compressobj(1)
    with files.atomic(path) as file:

        def chunk(kind, data):
            checksum = zlib.crc32(kind + data)
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))

        def append(rows):
            rows = rows.reshape(len(rows), -1)
            filtered = np.empty([len(rows), 1 + rows.shape[1]], np.uint8)
            filtered[:, 0] = colour == RGB  # the filter of each row stands before it
            filtered[:, 1:] = rows
            if colour == RGB:
                filtered[:, 4:] -= rows[:, :-3]
            data = compressor.compress(filtered)
            if data:
                chunk(b"IDAT", data)

        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
        if colour == PALETTE:
            chunk(b"PLTE", np.array(palette, np.uint8).tobytes())
        yield append
        chunk(b"IDAT", compressor.flush())
        chunk(b"IEND", b"")
