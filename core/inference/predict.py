"""Segment image files: write class ids, colours and an overlay at each image's own size.

Threads decode and write files while the network runs. A large image goes through the
network in tiles and is written in strips. Pillow decodes a file whole, at four bytes per
pixel; uncompressed TIFF and PPM files are memory-mapped instead.
"""

import dataclasses
import itertools
import json
import sys
import threading
import time
from concurrent.futures import CancelledError

import numpy as np

from core.data import remarks
from core.inference import outputs, photos, pipeline, tiling
from core.inference.evaluate import make_predict
from core.runtime import files, progress
from core.runtime.errors import InputError

STRIP = 512  # rows of class ids that are scaled up at a time


def run(experiment, weights, dtype, paths, output_dir, *, resize, tile, flip):
    """Segment image files into output_dir; return 0, or 1 if some could not be read.

    resize: side to which images are scaled for the network, whose result is scaled back; None
    for their own size. With None, an image of more than tile x tile pixels is processed in
    tiles, which overlap so far that the result equals the whole image's. flip: average the
    logits with the mirrored image's. `outputs.write` says which files are written for each
    image; shares.jsonl gets one line for each. Raises InputError if output_dir cannot be
    written, if a result would replace an image, and if tile is too small.
    """
    names = photos.output_names(paths)
    outputs.refuse_overwriting(names, output_dir)
    job = Job(experiment, weights, dtype, names, output_dir, resize=resize, tile=tile, flip=flip)
    started = time.monotonic()
    with files.writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    with open(output_dir / "shares.jsonl", "w") as records, pipeline.threads(job.stopped) as pool:
        decoded = pipeline.ahead(pool, job.read, paths, photos.area)
        segmented = job.segment(photo for photo in decoded if photo)
        for record in pipeline.ahead(pool, job.write, segmented, lambda item: item[0].area):
            records.write(json.dumps(record) + "\n")
    job.bar.close()
    for line in remarks.summary(job.remarks):
        print(f"warning: {line}", file=sys.stderr)
    _report(len(paths), job.unreadable, time.monotonic() - started, job.stopwatch, output_dir)
    return 1 if job.unreadable else 0


class Job:
    """The stages of `run` and what they share: the network, the options, the files not readable.

    `read` and `write` run in the pool's threads, `segment` in the main thread. Tiles are
    computed by the thread that writes them.
    """

    def __init__(self, experiment, weights, dtype, names, output_dir, *, resize, tile, flip):
        self.experiment, self.weights = experiment, weights
        self.names, self.output_dir = names, output_dir  # names: path -> output name
        self.resize, self.tile = resize, tile
        self.multiple = tiling.multiple(experiment.forward, weights)
        forward = tiling.mirrored(experiment.forward) if flip else experiment.forward
        any_size = dataclasses.replace(experiment, forward=tiling.padded(forward, self.multiple))
        self.predict = make_predict(any_size, weights, dtype)
        self.radius = None  # of the receptive field, once it is known
        self.in_use, self.stopped = threading.Lock(), threading.Event()
        self.unreadable = []  # one InputError for each file
        self.remarks = []  # of `core.data.remarks`
        self.stopwatch = pipeline.Stopwatch("decode", "network", "write")
        self.bar = progress.Progress(len(names), "image")

    def read(self, path):
        """`photos.Photo` of a file, or None, with the error in `unreadable`."""
        with self.stopwatch.add("decode"), remarks.collect() as found:
            try:
                return photos.read(
                    path,
                    self.names[path],
                    resize=self.resize,
                    resample=self.experiment.dataset.resample,
                    tile=self.tile,
                    white_level=self.experiment.dataset.white_level,
                )
            except InputError as error:
                self.unreadable.append(error)
            finally:
                self.remarks += found

    def network(self, pixels):
        """Class ids uint8 [B, h, w] of images uint8 [B, h, w, 3], for one thread at a time.

        Memory is that of one batch or tile. Raises CancelledError once `stopped` is set.
        """
        with self.in_use:
            if self.stopped.is_set():
                raise CancelledError
            with self.stopwatch.add("network"):
                return self.predict(pixels).numpy()

    def segment(self, decoded):
        """Yield (photo, strips of class ids uint8 [rows, width]) for each photo."""
        for batch in pipeline.batches(decoded, self.tile**2):
            if batch[0].pixels is None:
                yield batch[0], self.tiles(batch[0], self.overlap())
            else:
                for photo, class_ids in zip(batch, self.network(np.stack([each.pixels for each in batch]))):
                    yield photo, _scaled(class_ids, photo.height, photo.width)
                self.bar.add(len(batch))

    def overlap(self):
        """The receptive field's radius. It is computed once, here in the main thread.

        The probe takes seconds and as much memory as a tile, so no tile is computed meanwhile.
        """
        if self.radius is None:
            with self.in_use:
                self.radius = tiling.receptive_field_radius(
                    self.experiment.forward, self.weights, self.multiple
                )
        return self.radius

    def tiles(self, photo, overlap):
        """Yield strips of class ids of a large photo, as high as a row of tiles."""

        def network(pixels):
            with self.stopwatch.add("write", sign=-1):  # the writing thread waits for the network
                return self.network(pixels)

        size = {"tile": self.tile, "overlap": overlap, "multiple": self.multiple}
        tiles = tiling.tiled(network, photo.crop, photo.height, photo.width, **size)
        for _, row in itertools.groupby(tiles, key=lambda part: part[0].start):
            strip = np.concatenate([class_ids for _, _, class_ids in row], axis=1)
            self.bar.add(len(strip) / photo.height)
            yield strip

    def write(self, segmented):
        """Write a photo's results; return its record. segmented: an item of `segment`."""
        with self.stopwatch.add("write"):
            return outputs.write(*segmented, self.experiment, self.output_dir)


def _scaled(class_ids, height, width):
    """Yield strips uint8 [rows, width] of class ids [h, w] scaled by nearest neighbour."""
    rows, columns = (
        ((np.arange(size) + 0.5) * old / size).astype(int)
        for size, old in zip((height, width), class_ids.shape)
    )
    for top in range(0, height, STRIP):
        yield class_ids[rows[top : top + STRIP, None], columns]


def _report(count, unreadable, seconds, stopwatch, output_dir):
    done = count - len(unreadable)
    print(
        f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; share of that time:"
        f" {stopwatch.shares(seconds)}"
    )
    print(f"{output_dir}: NAME_labels.png, NAME_colours.png, NAME_overlay.png, shares.jsonl")
    for error in sorted(unreadable, key=str):
        print(f"skipped: {error}", file=sys.stderr)
