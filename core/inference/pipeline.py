"""Tools for threads that decode and write images while the network runs: stopwatch, thread pool, batches."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor


class Stopwatch:
    """Measures the seconds spent in each stage of a pipeline, summed over all threads."""

    def __init__(self, *stages):
        # stage -> list of durations in seconds; several threads may append to the same list safely
        self.spans = {stage: [] for stage in stages}

    @contextlib.contextmanager
    def add(self, stage, *, sign=1):
        """Context manager that adds the duration of its block to the time of a stage.

        sign: 1, or -1 to subtract the duration instead.
        """
        started = time.monotonic()
        try:
            yield
        finally:
            self.spans[stage].append(sign * (time.monotonic() - started))

    def shares(self, seconds):
        """Return a text with the time of each stage as a percentage of `seconds`, such as "decode 10%"."""
        return ", ".join(f"{stage} {sum(spans) / seconds:.0%}" for stage, spans in self.spans.items())


@contextlib.contextmanager
def threads(stopped):
    """Context manager that yields a `ThreadPoolExecutor`. At the end of the block, it waits for all tasks.

    stopped: a `threading.Event`. If the block raises, this event is set, and tasks that have not started are
    cancelled. Running tasks may check the event in order to end early.
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

    photos: an iterable of `photos.Photo`s. The inputs of the network (`Photo.pixels`) have the same shape in
    a batch. max_pixels: the largest number of pixels in a batch, summed over its photos. For each photo, the
    pixels of the photo or of the network's input are counted, whichever are more. A photo with more than
    max_pixels pixels is a batch on its own. So is a photo that is processed in tiles, which must have more
    than max_pixels pixels.
    """
    batch, held = [], 0
    for photo in photos:
        # if photos are resized, the input of the network may have more or fewer pixels than the photo
        count = photo.area if photo.pixels is None else max(photo.area, photo.pixels.size // 3)
        if batch and (held + count > max_pixels or photo.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch, held = [], 0
        batch.append(photo)
        held += count
    if batch:
        yield batch
