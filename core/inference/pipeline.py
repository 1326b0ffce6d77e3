"""Threads that decode and write images while the network runs, with a bound on memory."""

import collections
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

# bound on the pixels being decoded, or waiting to be written; a larger image is processed alone
PIXELS_AHEAD = 2**25
IMAGES_AHEAD = 256


class Stopwatch:
    """Measures the seconds spent in each stage of a pipeline, summed over all threads."""

    def __init__(self, *stages):
        self.spans = {stage: [] for stage in stages}  # list.append is safe between threads

    @contextlib.contextmanager
    def add(self, stage, *, sign=1):
        """Add the block's duration to a stage; with sign=-1, subtract it."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spans[stage].append(sign * (time.monotonic() - started))

    def shares(self, seconds):
        """Return one line: the time of each stage as a percentage of `seconds`."""
        return ", ".join(f"{stage} {sum(spans) / seconds:.0%}" for stage, spans in self.spans.items())


@contextlib.contextmanager
def threads(stopped):
    """Context manager for a thread pool.

    If the block raises, sets the event `stopped` and drops the tasks that have not started.
    """
    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ahead(pool, function, items, pixels):
    """Yield function(item) for each item, in order, computed in the pool's threads in advance.

    pixels: a function that returns an item's number of pixels. At most PIXELS_AHEAD pixels and
    IMAGES_AHEAD items are pending at a time.
    """
    waiting, pending = collections.deque(), 0
    for item in items:
        waiting.append((pixels(item), pool.submit(function, item)))
        pending += waiting[-1][0]
        while pending > PIXELS_AHEAD or len(waiting) > IMAGES_AHEAD:
            pending -= waiting[0][0]
            yield waiting.popleft()[1].result()
    for _, result in waiting:
        yield result.result()


def batches(photos, max_pixels):
    """Group consecutive `photos.Photo`s with equal input shapes into lists of at most max_pixels.

    A photo with more pixels, or one that is processed in tiles, is returned in a list with one element.
    """
    batch, held = [], 0
    for photo in photos:
        count = photo.area if photo.pixels is None else max(photo.area, photo.pixels.size // 3)
        if batch and (held + count > max_pixels or photo.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch, held = [], 0
        batch.append(photo)
        held += count
    if batch:
        yield batch
