"""Read image files in background threads, with a bound on the pixels in memory."""

import collections
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

PIXELS_AHEAD = 2**26  # bound on decoded pixels, 256 MiB in Pillow; a larger item is read alone


def read_ahead(read, items):
    """Yield read(item) for each item, a tuple of image files, in order.

    Threads read ahead as long as the images in memory have at most PIXELS_AHEAD pixels.
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
    """Return width times height from the file's header; 0 if the header cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would block
            return 0
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # the error is reported when the file is decoded
        return 0
