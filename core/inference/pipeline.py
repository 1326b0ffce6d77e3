"""Decode and write images in threads while the network runs, and limit the memory that they need."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor


class Stopwatch:
    """Measures the seconds spent in each stage of a pipeline, summed over all threads."""

    def __init__(self, *stages):
        # stage -> list of durations in seconds; threads may append to one list at the same time
        self.spans = {stage: [] for stage in stages}

    @contextlib.contextmanager
    def add(self, stage, *, sign=1):
        """Context manager that adds the duration of its block to a stage; with sign=-1, subtracts it."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spans[stage].append(sign * (time.monotonic() - started))

    def shares(self, seconds):
        """Return a line of text with the time of each stage as a percentage of `seconds`."""
        return ", ".join(f"{stage} {sum(spans) / seconds:.0%}" for stage, spans in self.spans.items())


@contextlib.contextmanager
def threads(stopped):
    """Context manager that yields a thread pool, and at its end waits for the pool's tasks.

    If the block raises, the `threading.Event` stopped is set, and tasks that have not started are dropped.
    """
    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def batches(photos, max_pixels):
    """Group consecutive `photos.Photo`s into batches for the network; yield each batch as a list.

    The network inputs of a batch have the same shape. Together the photos of a batch have at most max_pixels
    pixels. For a resized photo, the larger of the photo and its network input is counted. A photo with more
    pixels, or a photo that is processed in tiles, is a batch on its own.
    """
    batch, held = [], 0
    for photo in photos:
        # the network input of a resized photo may be larger or smaller than the photo
        count = photo.area if photo.pixels is None else max(photo.area, photo.pixels.size // 3)
        if batch and (held + count > max_pixels or photo.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch, held = [], 0
        batch.append(photo)
        held += count
    if batch:
        yield batch
