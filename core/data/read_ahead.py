"""Read image files in background threads, with a bound on the pixels in memory."""

import collections
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

PIXELS_AHEAD = 2**26  # bound on the pixels of decoded images in memory: 256 MiB at 4 bytes per pixel


def read_ahead(read, items):
    """Yield read(item) for each item, in the order of the items.

    An item is a tuple of image files. Threads read later items in advance, as long as all images in
    memory have at most PIXELS_AHEAD pixels together. An item with more pixels is read alone.
    """
    with ThreadPoolExecutor() as pool:
        waiting, ahead = collections.deque(), 0
        for item in items:
            pixels = sum(map(pixel_count, item))
            while waiting and ahead + pixels > PIXELS_AHEAD:
                taken, result = waiting.popleft()
                ahead -= taken
                yield result.result()
            waiting.append((pixels, pool.submit(read, item)))
            ahead += pixels
        while waiting:
            yield waiting.popleft()[1].result()


def pixel_count(path):
    """Return the number of pixels of an image file, from its header; 0 if the header cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would block
            return 0
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # the error is reported when the file is decoded
        return 0
