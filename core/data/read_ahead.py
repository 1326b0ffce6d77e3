"""Process images in background threads, with a limit on the number of pixels in memory."""

import collections

from core.data import images

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


def pixel_count(path, page=None):
    """Return the number of pixels of a page of an image file, from its header; 0 if it cannot be read.

    page: as for `images.read_rgb`.
    """
    try:
        if not path.is_file():  # opening a pipe would block
            return 0
        with images.open_page(path, page) as image:
            return image.width * image.height
    except Exception:  # decoding the file later reports the error
        return 0
