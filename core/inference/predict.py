"""Segment images: write class ids, colours and an overlay at each image's own size.

Threads decode and write files while the network runs. A large image is processed in tiles
and written in strips. Pillow decodes a file as a whole, at four bytes per pixel;
uncompressed TIFF and PPM files are memory-mapped instead.
"""

import dataclasses
import itertools
import sys
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import tensorflow as tf

from core.data import read_ahead, remarks
from core.inference import decision, outputs, photos, pipeline, probability_files, records, scaling, tiling
from core.runtime import progress
from core.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings for segmentation.

    resize:         side that images are scaled to for the network; logits are scaled back to
                    the image's size, bilinearly. None: the image's own size.
    tile:           without resize, an image of more than tile x tile pixels is processed in
                    tiles that overlap enough for the result to equal that of the whole image.
    flip:           average the logits with those of the mirrored image.
    threshold:      for two classes, the probability above which a pixel is of class 1; None: 0.5.
    probabilities:  None, or the format in which they are written: "npy" or "png".
    white_level:    as for `core.data.images.read_rgb`.
    """

    resize: int | None = None
    tile: int = 1024
    flip: bool = False
    threshold: float | None = None
    probabilities: str | None = None
    white_level: int = 0


def run(experiment, weights, dtype, sources, output_dir, options):
    """Segment `photos.Source`s into output_dir; return 0, or 1 if some could not be read.

    `outputs` describes the files written for each image, `records` the lines of shares.jsonl.
    Results of earlier calls are kept, except for images that are segmented again. Raises
    InputError if output_dir cannot be written, if a result would replace an image, if the tile
    is too small, and for a threshold with more than two classes.
    """
    if options.threshold is not None and len(experiment.classes) != 2:
        raise InputError(
            f"--threshold: needs two classes, but this run has {len(experiment.classes)}; leave it out."
        )
    started = time.monotonic()
    with records.opened(output_dir) as log:
        names = photos.output_names(sources, log.names())
        job = Job(experiment, weights, dtype, names, output_dir, options)
        outputs.refuse_overwriting([source.path for source in sources], job.written())
        with pipeline.threads(job.stopped) as pool:
            decoded = pipeline.ahead(
                pool, job.read, sources, lambda source: read_ahead.pixel_count(source.path)
            )
            segmented = job.segment(photo for photo in decoded if photo)
            for record in pipeline.ahead(pool, job.write, segmented, lambda each: each.size):
                log.add(record)
    job.bar.close()
    job.report(time.monotonic() - started)
    return 1 if job.unreadable else 0


@dataclasses.dataclass(frozen=True)
class Segmented:
    """A photo and the network's outputs for it.

    strips:  an iterable of strips, for `outputs.write`.
    size:    a bound on the memory used until it is written, in units of 4 bytes.
    """

    photo: photos.Photo
    strips: object
    size: int


class Job:
    """The stages of `run` and their shared state: network, options, names, unreadable files.

    `read` and `write` run in the pool's threads, `segment` in the main thread. Tiles are
    computed by the thread that writes them.
    """

    def __init__(self, experiment, weights, dtype, names, output_dir, options):
        self.experiment, self.weights, self.options = experiment, weights, options
        self.names, self.output_dir = names, output_dir  # names: source -> output name
        self.multiple = tiling.multiple(experiment.forward, weights)
        self.decide = decider(options)
        self.compute = make_network(experiment, weights, dtype, self.multiple, options)
        self.radius = None  # the radius of the receptive field, once computed
        self.in_use, self.stopped = threading.Lock(), threading.Event()
        self.unreadable, self.remarks = [], []  # InputErrors; see core.data.remarks
        self.stopwatch = pipeline.Stopwatch("decode", "network", "write")
        self.bar = progress.Progress(len(names), "image")

    def written(self):
        """Yield the paths of all result files."""
        for name in self.names.values():
            yield from outputs.paths(
                self.output_dir, name, self.options.probabilities, len(self.experiment.classes)
            )

    def read(self, source):
        """Return the `photos.Photo` of a source, or None after storing the error in `unreadable`."""
        with self.stopwatch.add("decode"), remarks.collect() as found:
            try:
                return photos.read(
                    source,
                    self.names[source],
                    resize=self.options.resize,
                    resample=self.experiment.dataset.resample,
                    tile=self.options.tile,
                    white_level=self.options.white_level,
                )
            except InputError as error:
                self.unreadable.append(error)
            finally:
                self.remarks += [each for each in found if each[0] != "pages" or source.number is None]

    def network(self, pixels):
        """Run the network on images uint8 [B, h, w, 3], for one thread at a time.

        Returns a list of arrays as described in `make_network`. Memory is bounded by one batch or tile.
        Raises CancelledError once `stopped` is set.
        """
        with self.in_use:
            if self.stopped.is_set():
                raise CancelledError
            with self.stopwatch.add("network"):
                return [output.numpy() for output in self.compute(pixels)]

    def segment(self, decoded):
        """Yield a `Segmented` for each photo."""
        for batch in pipeline.batches(decoded, self.options.tile**2):
            if batch[0].pixels is None:
                yield Segmented(batch[0], self.tiles(batch[0], self.overlap()), batch[0].area)
                continue
            results = self.network(np.stack([photo.pixels for photo in batch]))
            for photo, *arrays in zip(batch, *results):
                size = max(photo.area, sum(array.nbytes for array in arrays) // 4)
                yield Segmented(photo, self.strips(photo, arrays), size)
            self.bar.add(len(batch))

    def overlap(self):
        """Return the receptive field's radius; the first call, in the main thread, computes it.

        The probe takes seconds and as much memory as a tile, so no tile is computed meanwhile.
        """
        if self.radius is None:
            with self.in_use:
                self.radius = tiling.receptive_field_radius(
                    self.experiment.forward, self.weights, self.multiple
                )
        return self.radius

    def strips(self, photo, arrays):
        """Yield the strips of a photo that was processed as a whole."""
        if not self.options.resize:
            yield arrays
            return
        for logits in scaling.logit_strips(*arrays, photo.height, photo.width):
            yield [each.numpy() for each in self.decide(logits)]

    def tiles(self, photo, overlap):
        """Yield the strips of a large photo; each strip is one row of tiles."""

        def network(pixels):
            # the writing thread waits for the network; this time does not count as writing
            with self.stopwatch.add("write", sign=-1):
                return [output[0] for output in self.network(pixels[None])]

        size = {"tile": self.options.tile, "overlap": overlap, "multiple": self.multiple}
        tiles = tiling.tiled(network, photo.crop, photo.height, photo.width, **size)
        for rows, row in itertools.groupby(tiles, key=lambda part: part[0]):
            yield [np.concatenate(parts, axis=1) for parts in zip(*(arrays for _, _, arrays in row))]
            self.bar.add((rows.stop - rows.start) / photo.height)

    def write(self, segmented):
        """Write a photo's results; return its record."""
        with self.stopwatch.add("write"):
            return outputs.write(
                segmented.photo,
                segmented.strips,
                self.experiment,
                self.output_dir,
                self.options.probabilities,
            )

    def report(self, seconds):
        """Print the time, the files written, the remarks and the images that could not be read."""
        done = len(self.names) - len(self.unreadable)
        print(
            f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; busy during this time:"
            f" {self.stopwatch.shares(seconds)}"
        )
        if done:
            classes = len(self.experiment.classes)
            written = outputs.paths(self.output_dir, "NAME", self.options.probabilities, classes)
            print(f"{self.output_dir}: {', '.join(path.name for path in written)}, shares.jsonl")
            print("NAME_labels.png holds class ids, so it looks black in a viewer; look at NAME_colours.png")
        for line in remarks.summary(sorted(self.remarks)):
            print(f"warning: {line}", file=sys.stderr)
        for error in sorted(self.unreadable, key=str):
            print(f"skipped: {error}", file=sys.stderr)


def decider(options):
    """Return a function: float32 logits -> list of class ids and, if requested, encoded probabilities."""

    def decide(logits):
        outputs = [decision.class_ids(logits, options.threshold)]
        if options.probabilities:
            encoded = probability_files.encode(decision.probabilities(logits), options.probabilities)
            outputs.append(encoded)
        return outputs

    return decide


def make_network(experiment, weights, dtype, multiple, options):
    """Return a compiled function of images uint8 [B, h, w, 3] of any size, which returns a list of tensors.

    If images are resized, the list holds float32 logits [B, h, w, C], which the caller scales back and
    decides. Otherwise it holds the outputs of `decider`, which need less memory.
    """
    forward = tiling.mirrored(experiment.forward) if options.flip else experiment.forward
    forward, decide = tiling.padded(forward, multiple), decider(options)

    @tf.function(autograph=False, reduce_retracing=True)
    def compute(images):
        logits = tf.cast(forward(weights, tf.cast(images, dtype)), tf.float32)
        return [logits] if options.resize else decide(logits)

    return compute
