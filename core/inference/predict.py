"""Segment image files: write class ids, colours and an overlay for each image, at the size of the image.

Threads decode and write files while the network runs. If images are not resized for the network, a large
image is processed in tiles. The results of a large image are written in strips. A strip is a block of
consecutive rows.

If images are not resized, a large image in an uncompressed TIFF or PPM file is memory-mapped, provided that
`core.data.images.map_rgb` supports the file. Pillow decodes every other file as a whole, which needs at least
four bytes of memory per pixel.
"""

import dataclasses
import functools
import itertools
import sys
import threading
import time
from concurrent.futures import CancelledError
from fractions import Fraction

import numpy as np
import tensorflow as tf

from core import lowering
from core.data import read_ahead, remarks
from core.inference import (
    decision,
    outputs,
    photos,
    pipeline,
    probability_files,
    receptive_field,
    records,
    scaling,
    tiling,
)
from core.runtime import files, progress
from core.runtime.errors import InputError
from core.weights import fixed


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings for segmentation.

    resize:         each image is scaled to resize x resize pixels for the network, and its logits are
                    scaled back to the image's size, bilinearly. None: images keep their own size.
    tile:           the side of a tile in pixels. If resize is None, an image of more than tile x tile pixels
                    is processed in tiles of about this side. The tiles overlap so much that the logits equal
                    the logits of the network on the whole image up to rounding.
    flip:           if True, the logits of the image and of its mirror image are averaged.
    threshold:      None: each pixel gets the most probable class. A number, for two classes only: a pixel
                    gets class 1 if the probability of class 1 is above this number.
    probabilities:  the format in which class probabilities are written, "npy" or "png". None: class
                    probabilities are not written.
    white_level:    as for `core.data.images.read_rgb`.
    """

    resize: int | None = None
    tile: int = 1024
    flip: bool = False
    threshold: float | None = None
    probabilities: str | None = None
    white_level: int = 0


def run(experiment, weights, dtype, sources, output_dir, options):
    """Segment images and write the results to output_dir; return 0, or 1 if an image could not be read.

    experiment: the `Experiment`. weights: name -> tensor, the trained weights. dtype: the dtype of the
    activations. sources: a list of `photos.Source`s. options: `Options`.
    `core.inference.outputs` describes the files that are written for each image, and
    `core.inference.records` describes the file shares.jsonl. The results of earlier calls stay in the
    folder, except files that a new file of the same name replaces. So earlier files with class probabilities
    stay if the new call writes another format or none.
    Raises InputError in these cases:
    - options.threshold is given, and the number of classes is not two
    - `records.opened` raises InputError for output_dir, or a result file cannot be written
    - a result would replace an input image, or a file that `predict` did not write
    - an image is processed in tiles, and options.tile is too small for the network
    """
    if options.threshold is not None and len(experiment.classes) != 2:
        raise InputError(
            f"--threshold: needs two classes, but this run has {len(experiment.classes)}; leave it out."
        )
    started = time.monotonic()
    with records.opened(output_dir) as log:
        names = photos.output_names(sources, log.names())
        job = Job(experiment, weights, dtype, names, output_dir, options, log)
        written = (path for name in names.values() for path in job.paths(name))
        outputs.refuse_overwriting([source.path for source in sources], written)
        # up to 32 threads write at a time; each opens 3 files and, with --probabilities=png, one per class
        files.allow_open_files(1024 + 32 * (3 + len(experiment.classes)))
        with pipeline.threads(job.stopped) as pool:
            decoded = read_ahead.ahead(
                pool, job.read, sources, lambda source: read_ahead.pixel_count(source.path, source.page)
            )
            segmented = job.segment(photo for photo in decoded if photo)
            for _ in read_ahead.ahead(pool, job.write, segmented, lambda each: each.size):
                pass
        log.move_to_end(names.values())  # `Job.write` adds the records in any order
    job.bar.close()
    job.report(time.monotonic() - started)
    return 1 if job.unreadable else 0


@dataclasses.dataclass(frozen=True)
class Segmented:
    """A photo and its results before they are written.

    photo:   the `photos.Photo`.
    strips:  an iterable of strips of the results, for `outputs.write`.
    size:    an estimate of the memory of the photo or of its results, whichever needs more, in units of
             4 bytes.
    """

    photo: photos.Photo
    strips: object
    size: int


class Job:
    """The work of one call of `run`: the stages `read`, `segment` and `write`, and the state they share.

    `read` and `write` run in the threads of a pool. `segment` runs in the main thread, but the tiles of a
    large photo are computed in the thread that runs `write` for this photo.
    """

    def __init__(self, experiment, weights, dtype, names, output_dir, options, log):
        self.experiment, self.weights, self.options = experiment, weights, options
        self.log = log  # the `records.Records` of the output folder
        self.names, self.output_dir = names, output_dir  # names: `Source` -> name of the result files
        self.multiple = tiling.multiple(experiment.forward, weights)
        self.compute = make_network(experiment, weights, dtype, self.multiple, options)
        # A thread holds the lock `in_use` while it runs the network. An exception in `run` sets `stopped`.
        self.in_use, self.stopped = threading.Lock(), threading.Event()
        self.unreadable = []  # one InputError for each image that could not be read
        self.remarks = []  # remarks about the files, each a list [kind, sentence]; see `core.data.remarks`
        self.stopwatch = pipeline.Stopwatch("decode", "network", "write")
        self.bar = progress.Progress(len(names), "image")

    def paths(self, name):
        """Return the paths of the result files with this NAME; see `outputs.paths`."""
        classes = len(self.experiment.classes)
        return outputs.paths(self.output_dir, name, self.options.probabilities, classes)

    def read(self, source):
        """Read an image, a `photos.Source`, and return it as a `photos.Photo`.

        If the image cannot be read, the error is added to `unreadable`, and None is returned.
        """
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
                self.bar.add()
            finally:
                # A remark of the kind "pages" says that only the first page of the file is used. If each page
                # has its own `Source`, the remark is false and is dropped.
                self.remarks += [each for each in found if each[0] != "pages" or source.number is None]

    def network(self, pixels):
        """Run the network on images; return the results as a list of arrays, see `make_network`.

        pixels: the images, uint8 [B, h, w, 3]. If another thread is running the network, this thread waits.
        So the memory never holds the activations of several batches or tiles at the same time. Raises
        CancelledError if the event `stopped` is set.
        """
        with self.in_use:
            if self.stopped.is_set():
                raise CancelledError
            with self.stopwatch.add("network"):
                return [output.numpy() for output in self.compute(pixels)]

    def segment(self, decoded):
        """Run the network on photos; yield a `Segmented` for each photo.

        decoded: an iterable of `photos.Photo`s. For a photo that is processed in tiles, the network does not
        run here. It runs later, when `write` iterates over the field `strips` of the `Segmented`.
        """
        for batch in pipeline.batches(decoded, self.options.tile**2, self.multiple):
            if batch[0].pixels is None:
                yield Segmented(batch[0], self.tiles(batch[0], self.overlap), batch[0].area)
                continue
            results = self.network(np.stack([photo.pixels for photo in batch]))
            for photo, *arrays in zip(batch, *results):
                size = max(photo.area, sum(array.nbytes for array in arrays) // 4)
                yield Segmented(photo, self.strips(photo, arrays), size)
            self.bar.add(len(batch))

    @functools.cached_property
    def overlap(self):
        """Return the radius of the network's receptive field in pixels, the overlap for `tiling.tiled`.

        The first access measures the radius. This takes seconds, and less memory than a tile of the default
        size. During the measurement, the lock `in_use` is held, so that no tile is computed at the same time.
        """
        with self.in_use:
            return receptive_field.radius(self.experiment.forward, self.weights, self.multiple)

    def strips(self, photo, arrays):
        """Yield strips of results for `outputs.write`, for a photo that is not processed in tiles.

        arrays: the results of `network` for this photo, a list. If photos are resized, the list holds the
        logits, which are scaled to the photo's size strip by strip. Otherwise the list holds the results at
        the photo's size, and the list is yielded as a single strip.
        """
        if not self.options.resize:
            yield arrays
            return
        for logits in scaling.logit_strips(*arrays, photo.height, photo.width):
            yield [each.numpy() for each in decide(logits, self.options)]

    def tiles(self, photo, overlap):
        """Process a large photo in tiles; yield the strips of results for `outputs.write`.

        Each strip holds the results of one row of tiles. overlap: the radius of the network's receptive field
        in pixels.
        """

        def run_tile(pixels):
            """Run the network on one tile, uint8 [h, w, 3]; return the results for this tile, a list."""
            # `Job.write` measures its own duration, which includes this call, as the time of "write". So the
            # network's duration is subtracted from it.
            with self.stopwatch.add("write", sign=-1):
                return [output[0] for output in self.network(pixels[None])]

        size = {"tile": self.options.tile, "overlap": overlap, "multiple": self.multiple}
        tiles = tiling.tiled(run_tile, photo.crop, photo.height, photo.width, **size)
        for rows, row in itertools.groupby(tiles, key=lambda part: part[0]):
            yield [np.concatenate(parts, axis=1) for parts in zip(*(arrays for _, _, arrays in row))]
            self.bar.add(Fraction(rows.stop - rows.start, photo.height))

    def write(self, segmented):
        """Write the result files of a `Segmented` photo, and then add the photo's record to shares.jsonl.

        The record is added here, and not in the main thread, because after an error or Ctrl-C the main thread
        does not fetch the results of photos that are already written.
        """
        with self.stopwatch.add("write"):
            record = outputs.write(
                segmented.photo,
                segmented.strips,
                self.experiment,
                self.output_dir,
                self.options.probabilities,
            )
            self.log.add(record)

    def report(self, seconds):
        """Print the throughput, the names of the result files, the remarks, and the unreadable images.

        seconds: the duration of the whole job.
        """
        done = len(self.names) - len(self.unreadable)
        print(
            f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; share of this time in each"
            f" stage, summed over threads: {self.stopwatch.shares(seconds)}"
        )
        if done:
            names = ", ".join(path.name for path in self.paths("NAME"))
            print(f"{self.output_dir}: {names}, shares.jsonl")
            print("NAME_labels.png holds class ids, so it looks black; view NAME_colours.png instead")
        for line in remarks.summary(sorted(self.remarks)):
            print(f"warning: {line}", file=sys.stderr)
        for error in sorted(self.unreadable, key=str):
            print(f"skipped: {error}", file=sys.stderr)


def decide(logits, options):
    """Convert logits, float32 [..., C], to a list of results.

    The first item of the list holds class ids, uint8 [...]. If options.probabilities is given, a second item
    holds class probabilities [..., classes], as returned by `probability_files.encode`. options: `Options`.
    """
    results = [decision.class_ids(logits, options.threshold)]
    if options.probabilities:
        results.append(probability_files.encode(decision.probabilities(logits), options.probabilities))
    return results


def make_network(experiment, weights, dtype, multiple, options):
    """Return a compiled function: images uint8 [B, h, w, 3] of any size -> list of tensors.

    If options.resize is None, the list holds the results of `decide`, because class ids need less memory than
    logits. If options.resize is given, the list holds one tensor, the logits, float32 [B, h, w, C]. The
    caller then scales the logits to the images' size and calls `decide`.
    experiment, weights, dtype, options: as for `run`. Later changes of the weights may have no
    effect: see `core.weights.fixed`. multiple: images are padded so that this number divides their height and
    width; see `tiling.padded`.
    """
    forward = tiling.mirrored(experiment.forward) if options.flip else experiment.forward
    forward = fixed(tiling.padded(forward, multiple))

    @tf.function(autograph=False, reduce_retracing=True)
    def compute(images):
        with lowering.prediction():
            logits = tf.cast(forward(weights, tf.cast(images, dtype)), tf.float32)
        return [logits] if options.resize else decide(logits, options)

    return compute
