"""Segment image files: write class ids, colours and an overlay at each image's own size.

Threads decode and write files while the network runs. Large images that keep their own size are processed
in tiles, and their results are written in strips, which are blocks of consecutive rows. If the file of such
an image is an uncompressed TIFF or PPM file, it is memory-mapped. Pillow decodes every other file as a
whole, which needs four bytes of memory per pixel.
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

    resize:         each image is scaled to resize x resize pixels for the network, and its logits are
                    scaled back to the image's size, bilinearly. None: images keep their own size.
    tile:           if resize is None, an image of more than tile x tile pixels is processed in tiles of
                    about this side, in pixels. The tiles overlap so much that their logits equal the
                    logits of the whole image up to rounding.
    flip:           if True, the logits of the image and of its mirror image are averaged.
    threshold:      for two classes: a pixel gets class 1 if the probability of class 1 is above this
                    value. None: the more probable class.
    probabilities:  the format in which class probabilities are written, "npy" or "png"; None: they are
                    not written.
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

    sources: a list of `photos.Source`. options: `Options`. dtype: the dtype of the activations.
    `core.inference.outputs` describes the files that are written for each image, and
    `core.inference.records` describes the file shares.jsonl. Results of earlier calls are kept, except
    for images that are segmented again.
    Raises InputError if output_dir cannot be written, if a result would replace an input image, if the
    tile is too small for the network, and if a threshold is given but there are more than two classes.
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
            decoded = read_ahead.ahead(
                pool, job.read, sources, lambda source: read_ahead.pixel_count(source.path)
            )
            segmented = job.segment(photo for photo in decoded if photo)
            for record in read_ahead.ahead(pool, job.write, segmented, lambda each: each.size):
                log.add(record)
    job.bar.close()
    job.report(time.monotonic() - started)
    return 1 if job.unreadable else 0


@dataclasses.dataclass(frozen=True)
class Segmented:
    """A photo and its results, which are not written yet.

    strips:  an iterable of strips of the results, for `outputs.write`.
    size:    an estimate of the memory that the photo and its results need until they are written, in units
             of 4 bytes.
    """

    photo: photos.Photo
    strips: object
    size: int


class Job:
    """One call of `run`: its three stages `read`, `segment` and `write`, and the state that they share.

    `read` and `write` run in the threads of the pool, `segment` runs in the main thread. The tiles of a
    large photo are computed by the thread that writes their results.
    """

    def __init__(self, experiment, weights, dtype, names, output_dir, options):
        self.experiment, self.weights, self.options = experiment, weights, options
        self.names, self.output_dir = names, output_dir  # names: Source -> name of its result files
        self.multiple = tiling.multiple(experiment.forward, weights)
        self.decide = decider(options)
        self.compute = make_network(experiment, weights, dtype, self.multiple, options)
        self.radius = None  # the radius of the receptive field in pixels; `overlap` computes it
        self.in_use, self.stopped = threading.Lock(), threading.Event()  # in_use: held to run the network
        self.unreadable = []  # one InputError for each image that could not be read
        self.remarks = []  # [kind, sentence], see core.data.remarks
        self.stopwatch = pipeline.Stopwatch("decode", "network", "write")
        self.bar = progress.Progress(len(names), "image")

    def written(self):
        """Yield the paths of all files that this job will write."""
        for name in self.names.values():
            yield from outputs.paths(
                self.output_dir, name, self.options.probabilities, len(self.experiment.classes)
            )

    def read(self, source):
        """Return the `photos.Photo` of a `photos.Source`; None if it cannot be read.

        In that case the error is added to `unreadable`.
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
            finally:
                # if each page is segmented, the remark that only the first page is used does not apply
                self.remarks += [each for each in found if each[0] != "pages" or source.number is None]

    def network(self, pixels):
        """Run the network on images uint8 [B, h, w, 3]; return a list of arrays, see `make_network`.

        If another thread is running the network, this thread waits. The activations of only one batch or
        tile are in memory at a time. Raises CancelledError if the event `stopped` is set.
        """
        with self.in_use:
            if self.stopped.is_set():
                raise CancelledError
            with self.stopwatch.add("network"):
                return [output.numpy() for output in self.compute(pixels)]

    def segment(self, decoded):
        """Run the network on an iterable of `photos.Photo`s; yield a `Segmented` for each photo.

        The network runs later for photos that are processed in tiles: while their `strips` are consumed.
        """
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
        """Return the radius of the network's receptive field in pixels, the overlap for `tiling.tiled`.

        The first call computes it, which takes seconds and as much memory as a tile. During that time no
        other thread can run the network, so the memory for both is never needed at once.
        """
        if self.radius is None:
            with self.in_use:
                self.radius = tiling.receptive_field_radius(
                    self.experiment.forward, self.weights, self.multiple
                )
        return self.radius

    def strips(self, photo, arrays):
        """Yield the strips, for `outputs.write`, of a photo that the network processed as a whole.

        arrays: the results of `network` for this photo. If photos are resized, the only result is the
        logits. They are then scaled to the photo's size strip by strip.
        """
        if not self.options.resize:
            yield arrays
            return
        for logits in scaling.logit_strips(*arrays, photo.height, photo.width):
            yield [each.numpy() for each in self.decide(logits)]

    def tiles(self, photo, overlap):
        """Process a large photo in tiles; yield its strips, for `outputs.write`. A strip is a row of tiles.

        overlap: the radius of the network's receptive field in pixels.
        """

        def network(pixels):
            # the thread that writes this photo also runs the network; this time does not count as writing
            with self.stopwatch.add("write", sign=-1):
                return [output[0] for output in self.network(pixels[None])]

        size = {"tile": self.options.tile, "overlap": overlap, "multiple": self.multiple}
        tiles = tiling.tiled(network, photo.crop, photo.height, photo.width, **size)
        for rows, row in itertools.groupby(tiles, key=lambda part: part[0]):
            yield [np.concatenate(parts, axis=1) for parts in zip(*(arrays for _, _, arrays in row))]
            self.bar.add((rows.stop - rows.start) / photo.height)

    def write(self, segmented):
        """Write the results of a `Segmented` photo; return the content of its line in shares.jsonl."""
        with self.stopwatch.add("write"):
            return outputs.write(
                segmented.photo,
                segmented.strips,
                self.experiment,
                self.output_dir,
                self.options.probabilities,
            )

    def report(self, seconds):
        """Print the throughput, the files written, the remarks, and the images that could not be read.

        seconds: the duration of the whole job.
        """
        done = len(self.names) - len(self.unreadable)
        print(
            f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; share of this time in each"
            f" stage, summed over threads: {self.stopwatch.shares(seconds)}"
        )
        if done:
            classes = len(self.experiment.classes)
            written = outputs.paths(self.output_dir, "NAME", self.options.probabilities, classes)
            print(f"{self.output_dir}: {', '.join(path.name for path in written)}, shares.jsonl")
            print("NAME_labels.png holds class ids, so it looks black; view NAME_colours.png instead")
        for line in remarks.summary(sorted(self.remarks)):
            print(f"warning: {line}", file=sys.stderr)
        for error in sorted(self.unreadable, key=str):
            print(f"skipped: {error}", file=sys.stderr)


def decider(options):
    """Return a function that converts float32 logits [..., C] to a list of results.

    The list holds class ids, uint8 [...], and, if options.probabilities is given, class probabilities
    [..., classes] in the dtype that `probability_files.encode` returns.
    """

    def decide(logits):
        outputs = [decision.class_ids(logits, options.threshold)]
        if options.probabilities:
            encoded = probability_files.encode(decision.probabilities(logits), options.probabilities)
            outputs.append(encoded)
        return outputs

    return decide


def make_network(experiment, weights, dtype, multiple, options):
    """Return a compiled function: images uint8 [B, h, w, 3] of any size -> list of tensors.

    If options.resize is given, the list holds the float32 logits [B, h, w, C]. The caller scales them to
    the image's size and then calls `decider`'s function. Otherwise the list holds the results of
    `decider`'s function, which need less memory than logits.
    multiple: images are padded so that this number divides their height and width.
    """
    forward = tiling.mirrored(experiment.forward) if options.flip else experiment.forward
    forward, decide = tiling.padded(forward, multiple), decider(options)

    @tf.function(autograph=False, reduce_retracing=True)
    def compute(images):
        logits = tf.cast(forward(weights, tf.cast(images, dtype)), tf.float32)
        return [logits] if options.resize else decide(logits)

    return compute
