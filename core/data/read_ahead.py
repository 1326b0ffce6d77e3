"""Process images in background threads, with a bound on the pixels in memory."""

import collections

from PIL import Image

# at most so many pixels (128 MiB at 4 bytes per pixel) and so many items are pending at a time
PIXELS_AHEAD = 2**25
ITEMS_AHEAD = 256


def ahead(pool, function, items, pixels):
    """Yield function(item) for each item, in the order of the items; threads compute results in advance.

    pool: a `ThreadPoolExecutor`. pixels: a function: item -> number of pixels. An item is pending from its
    submission to the pool until its result is yielded. All pending items together have at most PIXELS_AHEAD
    pixels; an item with more pixels is processed alone.
    """
    waiting, pending = collections.deque(), 0
    for item in items:
        count = pixels(item)
        while waiting and (pending + count > PIXELS_AHEAD or len(waiting) >= ITEMS_AHEAD):
            taken, result = waiting.popleft()
            pending -= taken
            yield result.result()
        waiting.append((count, pool.submit(function, item)))
        pending += count
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
