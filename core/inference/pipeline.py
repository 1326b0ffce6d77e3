"""Stopwatch, thread pool and batches for `predict`, whose threads decode and write images concurrently."""

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor


class Stopwatch:
    """Measures the seconds spent in each stage of a pipeline, summed over all threads.

    stages: the names of the stages, such as "decode" and "network".
    """

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
        """Return the time of each stage as a percentage of `seconds`, as text: "decode 10%, network 85%"."""
        return ", ".join(f"{stage} {sum(spans) / seconds:.0%}" for stage, spans in self.spans.items())


@contextlib.contextmanager
def threads(stopped):
    """Context manager that yields a `ThreadPoolExecutor`, and waits for all its tasks when the block ends.

    stopped: a `threading.Event`. If the block raises, this event is set, and tasks that have not started are
    cancelled. Tasks that are running can check the event in order to end early.
    """
    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def batches(photos, max_pixels, multiple):
    """Group consecutive `photos.Photo`s into batches for the network; yield each batch as a list.

    photos: an iterable of `photos.Photo`s. In a batch, the field `pixels`, the input of the network, has the
    same shape for all photos.
    max_pixels: the largest number of pixels in a batch, summed over the photos of the batch. The pixels of a
    photo are counted at its own size or at the size of the network's input, whichever is larger. The sides of
    the input are rounded up to a multiple of `multiple`, because the network pads them. A photo that exceeds
    max_pixels is a batch on its own. If a photo is processed in tiles, its field `pixels` is None.
    The caller must choose max_pixels smaller than the number of pixels of such a photo, so that the photo is
    a batch on its own.
    """
    batch, held = [], 0
    for photo in photos:
        count = photo.area
        if photo.pixels is not None:
            padded = (-(-side // multiple) * multiple for side in photo.pixels.shape[:2])
            count = max(count, math.prod(padded))
        if batch and (held + count > max_pixels or photo.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch, held = [], 0
        batch.append(photo)
        held += count
    if batch:
        yield batch
