"""Process images in background threads, with a limit on the number of pixels in memory."""

import collections

from PIL import Image

# The largest numbers of pixels and of items that are pending at a time, see `ahead`. 2**25 pixels take
# 128 MiB at 4 bytes per pixel.
PIXELS_AHEAD = 2**25
ITEMS_AHEAD = 256


def ahead(pool, function, items, pixels):
    """Yield function(item) for each item, in the order of the items. Threads compute results in advance.

    pool: the `ThreadPoolExecutor` with these threads. pixels: a function: item -> number of pixels.

    An item is pending from its submission to the pool until its result is yielded. At most ITEMS_AHEAD items
    are pending, and together they have at most PIXELS_AHEAD pixels. Exception: an item that alone has more
    than PIXELS_AHEAD pixels is processed while no other item is pending.
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


def pixel_count(path, page=0):
    """Return the number of pixels that the header of an image file gives; 0 if the header cannot be read.

    page: the index of a page of the file.
    """
    try:
        if not path.is_file():  # opening a pipe would block
            return 0
        with Image.open(path) as image:
            image.seek(page)
            return image.width * image.height
    except Exception:  # decoding the file later reports the error
        return 0
