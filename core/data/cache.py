"""Decode a data set once, store the arrays on disk, and memory-map them in each later command.

A cache is a folder with these files, where M is the number of examples:

    images.u8     the photos, uint8 [M, H, W, 3]
    masks.u8      the class ids, uint8 [M, H, W]
    index.json    the fields of `_Index`

The folder's name contains a digest of the files, the settings and the reading code (`core.data.cache_key`),
but not of the versions of Pillow and NumPy. A complete cache never changes. So several users can share a
cache, and a cache can be on a read-only file system.

The functions `find` and `read` of a data set (`core.experiment.Dataset`) determine the examples. `find`
returns a list of items. An item is a tuple of files, usually a photo and its mask. `read` makes one or more
examples from an item, for example the patches of a large photo. An item is called unreadable if `read`
raises InputError for it.

While a data set is decoded, the folder is called NAME.partial, where NAME is the name of the complete
cache. After each block of items, the index.json in NAME.partial is updated. After an interruption, the next
call of `prepare` continues with the first item that index.json does not count. At the end the folder is
renamed to NAME.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from core.data import cache_key, read_ahead, remarks, synthetic
from core.runtime import files as filesystem
from core.runtime import progress
from core.runtime.errors import InputError

BLOCK = 256  # number of items decoded between two updates of index.json


@dataclasses.dataclass(frozen=True)
class Examples:
    """The decoded examples of one split of a data set.

    The cache holds M examples, and N of them belong to the split. N is less than M if the cache also holds
    examples of the other split.

    data_dir:      folder of the data set
    checksum:      CRC-32 of all pixels and class ids of the M examples
    images:        uint8 [M, H, W, 3], RGB, 0..255; maps a whole file
    masks:         uint8 [M, H, W], class ids; maps a whole file
    rows:          int64 [N]: indices of the split's examples in images and masks
    owner:         int64 [M], ascending: for each example, the index in `files` of the item that it was
                   made from
    files:         list of the readable items (tuples of files)
    class_pixels:  int64 [256]: number of pixels of each class id in the M masks
    photo_hashes:  int64 [M]: 64-bit hash of the photo of each example, see `photo_hash`
    warnings:      sentences about files that were not used or were read in an unexpected way
    """

    data_dir: Path
    checksum: int
    images: np.ndarray
    masks: np.ndarray
    rows: np.ndarray
    owner: np.ndarray
    files: list
    class_pixels: np.ndarray
    photo_hashes: np.ndarray
    warnings: list = dataclasses.field(default_factory=list)

    def __len__(self):
        return len(self.rows)

    @functools.cached_property
    def split_pixels(self):
        """The number of pixels of each class id in the masks of the split's N examples, int64 [256]."""
        if len(self) == len(self.masks):
            return self.class_pixels
        counts = (np.bincount(self.masks[row].ravel(), minlength=256) for row in self.rows)
        return np.sum(list(counts), axis=0)

    @property
    def split_hashes(self):
        """The photo hashes of the split's N examples, int64 [N], in the order of `rows`."""
        return self.photo_hashes[self.rows]


@dataclasses.dataclass
class _Index:
    """The content of index.json, which describes the items decoded so far. All fields are JSON values."""

    examples: list = dataclasses.field(default_factory=list)  # number of examples of each item; 0: unreadable
    bad: list = dataclasses.field(default_factory=list)  # one sentence about each unreadable item
    remarks: list = dataclasses.field(default_factory=list)  # [kind, sentence] lists, see core.data.remarks
    size: list = dataclasses.field(default_factory=lambda: [0, 0])  # height and width of each example
    class_pixels: list = dataclasses.field(default_factory=lambda: [0] * 256)  # number of pixels per class id
    photo_hashes: list = dataclasses.field(default_factory=list)  # hash of the photo of each example
    checksum: int = 0  # CRC-32 of all pixels and class ids

    @classmethod
    def load(cls, path):
        """Read an `_Index` from a JSON file. Raises KeyError if fields are missing or unknown."""
        values = json.loads(path.read_text())
        if values.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise KeyError("index.json has other fields")
        return cls(**values)

    def save(self, path):
        filesystem.write_text(path, json.dumps(dataclasses.asdict(self)))


def generated(name, generate, cache_dir):
    """Return the folder with the generated files of a data set. If the folder is missing, generate the files.

    name, generate: fields of the `core.experiment.Dataset`. cache_dir: folder of all caches, a `Path`. The
    name of the returned folder contains a digest of the source files of `generate` and of all modules in
    core/data/synthetic/.
    """
    sources = [cache_key.source_file(generate), *sorted(Path(synthetic.__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in sources)).hexdigest()[:12]
    folder = cache_dir / "generated" / f"{name}-{digest}"
    if not folder.exists():
        with _building(folder) as partial:
            if not folder.exists():  # another process may have generated the files while this one waited
                _warn_of_edits(sources, folder)
                generate(partial)
                os.sync()  # so that a power failure after the renaming leaves no empty files
                partial.rename(folder)
    return folder


def load_split(dataset, flags, split, *, said=()):
    """Call `prepare` with the values of a run's flags; return the `Examples` of a split.

    flags: an object with the attributes data_dir, cache_dir, limit, skip_bad_images and max_bad_share.
    dataset, split, said: see `prepare`.
    """
    return prepare(
        dataset,
        flags.data_dir,
        split,
        Path(flags.cache_dir),
        limit=flags.limit,
        bad_share=flags.skip_bad_images and flags.max_bad_share,
        said=said,
    )


def prepare(dataset, data_dir, split, cache_dir, *, limit=0, bad_share=0.0, said=()):
    """Return the `Examples` of a split. Decodes the split's files if no cache of the files exists yet.

    Prints warnings about files that are not used or are read in an unexpected way.

    dataset:    `core.experiment.Dataset`
    data_dir:   a folder in which `dataset.find` finds files; None for generated files
    split:      "train", "val", or "all" for the examples of both splits. With "all", `dataset.read` gets
                "val" as the split of every item
    cache_dir:  folder of all caches, a `Path`
    limit:      if above 0, only the first `limit` items are used
    bad_share:  the largest share of the items that may be unreadable, at least 0 and below 1. Unreadable
                items are left out, and a warning names each of them
    said:       warnings that the caller has already printed, for example about the other split. This function
                does not print them a second time

    Raises InputError that names the first unreadable file if the share of unreadable items exceeds bad_share.
    Also raises InputError if `dataset.find` does, if the disk fails while a file is read, or if the cache is
    damaged or cannot be written.
    """
    data_dir = Path(data_dir) if data_dir else generated(dataset.name, dataset.generate, cache_dir)
    with remarks.collect() as found_remarks:
        files = _find(dataset, data_dir, split)[: limit or None]
    folder = cache_dir / "decoded" / f"{dataset.name}-{cache_key.digest(dataset, files)}"
    if not folder.exists():
        with _building(folder) as partial:
            if not folder.exists():  # another process may have decoded the files while this one waited
                _warn_of_edits(cache_key.sources(dataset.read), folder)
                _decode(dataset, files, split, partial, folder, bad_share)
    index, images, masks = _load(folder)
    _refuse(index.bad, len(files), bad_share)
    left_out = [f"left out: {sentence}" for sentence in index.bad]
    # with the split "all", `_find` calls `dataset.find` twice, which may add the same remark twice
    different = dict.fromkeys(map(tuple, found_remarks))
    warnings = [*left_out, *remarks.summary([*different, *index.remarks])]
    for line in warnings:
        if line not in said:
            print(f"warning: {line}")
    files = [each for each, count in zip(files, index.examples) if count]
    owner = np.repeat(np.arange(len(files)), [count for count in index.examples if count])
    return Examples(
        data_dir=data_dir,
        checksum=index.checksum,
        images=images,
        masks=masks,
        rows=np.arange(len(owner)) if split == "all" else dataset.select(owner, split),
        owner=owner,
        files=files,
        class_pixels=np.array(index.class_pixels, np.int64),
        photo_hashes=np.array(index.photo_hashes, np.int64),
        warnings=warnings,
    )


def _find(dataset, data_dir, split):
    if split != "all":
        return list(dataset.find(data_dir, split))
    return list(dict.fromkeys(file for each in ("train", "val") for file in dataset.find(data_dir, each)))


def _load(folder):
    """Return (index, images, masks) of a complete cache: an `_Index` and two memory-mapped arrays."""
    with _damage_named(folder):
        index = _Index.load(folder / "index.json")
        shape = (sum(index.examples), *index.size)
        images = _map(folder / "images.u8", (*shape, 3))
        masks = _map(folder / "masks.u8", shape)
    return index, images, masks


def _map(path, shape):
    """Return the content of a file as a memory-mapped uint8 array.

    path: the file. shape: the shape of the array. The mode "r" of `np.memmap` makes a shared mapping. Some
    network file systems refuse shared mappings with the error ENODEV. On such a file system, this function
    uses the mode "c", which makes a private mapping with the same content.
    """
    try:
        return np.memmap(path, np.uint8, "r", shape=shape)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return np.memmap(path, np.uint8, "c", shape=shape)


@contextlib.contextmanager
def _damage_named(folder):
    """Context manager: convert exceptions from a damaged cache to an InputError that names the folder."""
    try:
        yield
    except (FileNotFoundError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: damaged cache ({error}); delete this folder.") from None


@contextlib.contextmanager
def _building(folder):
    """Context manager: hold a lock, so that only one process at a time makes the folder; yield NAME.partial.

    NAME.partial is the path in which the caller makes the content, before it renames NAME.partial to
    `folder`. Creates the parent folder. Converts an OSError, for example of a full disk, to an InputError.
    """
    with filesystem.writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.lock(folder.with_name(f"{folder.name}.lock")):
            yield folder.with_name(f"{folder.name}.partial")


def _warn_of_edits(sources, folder):
    """Print a warning if source files were edited after this process began. sources: list of paths.

    The name of the cache `folder` contains a digest of the edited files, but the process may run old code.
    """
    for path in filter(filesystem.edited_since_start, sources):
        print(
            f"warning: {path}: edited after this process began; if the process runs the old code, the images"
            f" will be wrong: then restart Python, and delete {folder}."
        )


def _refuse(bad, total, bad_share):
    """Raise InputError if the share of unreadable items exceeds bad_share.

    bad: one sentence about each unreadable item. total: number of all items.
    """
    if len(bad) > bad_share * total:
        count = f"at least {len(bad)} of {total} photos or masks are unreadable, more than --max_bad_share="
        raise InputError((f"{count}{bad_share:g}; the first: " if bad_share else "") + bad[0])


def _decode(dataset, files, split, partial, folder, bad_share):
    """Decode all items into the folder `partial`, then rename it to `folder`.

    If an interrupted call left `partial`, the items that its index.json counts are not decoded again.

    files: list of the items. folder: the path of the complete cache. partial: the path NAME.partial.
    dataset, split, bad_share: see `prepare`. Raises InputError if the share of unreadable items exceeds
    bad_share, if `partial` is damaged, or if `dataset.read` returns arrays of a wrong dtype or shape.
    """
    _mention_other_caches(dataset, partial)
    partial.mkdir(exist_ok=True)
    index, sizes = _load_partial(partial)
    print(f"decoding {len(files)} files into {folder}")
    read = functools.partial(_read, dataset, split)
    with (
        contextlib.closing(progress.Progress(len(files), "file", done=len(index.examples))) as bar,
        ThreadPoolExecutor() as pool,
        _appendable(partial / "images.u8", sizes["images.u8"]) as images,
        _appendable(partial / "masks.u8", sizes["masks.u8"]) as masks,
    ):
        while len(index.examples) < len(files):
            block = files[len(index.examples) :][:BLOCK]
            for paths, result in zip(block, read_ahead.ahead(pool, read, block, _pixel_count)):
                bar.add(1)
                _append(index, result, paths[0], images, masks)
                _refuse(index.bad, len(files), bad_share)
            for file in (images, masks):
                file.flush()
                os.fsync(file.fileno())
            index.save(partial / "index.json")
    partial.rename(folder)


def _pixel_count(paths):
    """Return the sum of the numbers of pixels of an item's files."""
    return sum(map(read_ahead.pixel_count, paths))


def _load_partial(partial):
    """Return (index, sizes) of a folder NAME.partial.

    index: the folder's `_Index`, empty for a new folder. sizes: name of an array file -> number of its bytes
    that the index covers. The file is longer if decoding was interrupted before index.json was updated.
    Raises InputError if it is shorter, or if index.json is damaged.
    """
    index = _Index()
    with _damage_named(partial):
        if (partial / "index.json").exists():
            index = _Index.load(partial / "index.json")
        masks_bytes = sum(index.examples) * index.size[0] * index.size[1]
        sizes = {"images.u8": 3 * masks_bytes, "masks.u8": masks_bytes}
        for name, size in sizes.items():
            if size and (partial / name).stat().st_size < size:
                raise ValueError(f"{name} is shorter than index.json says")
    return index, sizes


def _read(dataset, split, files):
    """Read an item and return ((photos, masks), remarks), or the error message if the item is unreadable.

    files: the files of the item. photos: uint8 [K, H, W, 3], the photos of the item's K examples.
    masks: uint8 [K, H, W], the class ids of these photos. remarks: list of [kind, sentence], see
    `core.data.remarks`. The error message is a text.

    Raises InputError if the disk or the operating system fails while the item is read. Such an item is not
    called unreadable, because a later call may be able to read it.
    """
    with remarks.collect() as collected:
        try:
            return dataset.read(files, "val" if split == "all" else split), collected
        except InputError as error:
            return str(error)
        except OSError as error:
            raise InputError(
                f"{error.filename or files[0]}: cannot be read now ({error.strerror or error}); check the"
                " disk and give the same command again."
            ) from None


def _append(index, result, path, images, masks):
    """Append an item's examples to the two array files, and update the index.

    index: the `_Index`. result: what `_read` returned for the item. path: the item's first file, for error
    messages. images, masks: the open array files. For an unreadable item, only the index is changed.
    Raises InputError if `_check_arrays` does.
    """
    if isinstance(result, str):
        index.examples.append(0)
        index.bad.append(result)
        return
    (photos, class_ids), file_remarks = result
    _check_arrays(photos, class_ids, index.size, path)
    for file, array in ((images, photos), (masks, class_ids)):
        data = array.tobytes()
        file.write(data)
        index.checksum = zlib.crc32(data, index.checksum)
    index.examples.append(len(class_ids))
    index.remarks += file_remarks
    index.size = list(class_ids.shape[1:])
    index.class_pixels = (index.class_pixels + np.bincount(class_ids.ravel(), minlength=256)).tolist()
    index.photo_hashes += map(photo_hash, photos)


def photo_hash(photo):
    """Return a 64-bit hash (BLAKE2b) of a photo's pixels, uint8 [H, W, 3], as a signed int."""
    digest = hashlib.blake2b(photo.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _check_arrays(photos, masks, size, path):
    """Raise InputError unless an item's arrays have the dtypes and shapes that `Dataset.read` must return.

    size: [height, width] of the examples of earlier items, or [0, 0] if there are none. path: the item's
    first file, which the message names.
    """
    shapes = masks.ndim == 3 and photos.shape == (*masks.shape, 3)
    shapes = shapes and tuple(size) in ((0, 0), masks.shape[1:])
    if not shapes or photos.dtype != np.uint8 or masks.dtype != np.uint8:
        raise InputError(
            f"{path}: the reader returned {photos.dtype} {list(photos.shape)} and {masks.dtype}"
            f" {list(masks.shape)}; it must return uint8 [K, H, W, 3] and [K, H, W], with the same height"
            " and width for all files."
        )


def _appendable(path, size):
    """Open a binary file for appending after its first `size` bytes.

    The file is created if it is missing. Bytes after the first `size` bytes are removed.
    """
    file = open(path, "ab")  # writes always append
    file.truncate(size)
    return file


def _mention_other_caches(dataset, partial):
    """If there are two or more other caches of the same data set, print the disk space that they use.

    partial: the path NAME.partial of the cache that is being made.
    """
    others = [path for path in partial.parent.glob(f"{dataset.name}-*") if path.is_dir() and path != partial]
    if len(others) < 2:  # one other cache is usual, because it may hold the other split of the same data
        return
    with contextlib.suppress(OSError):  # another process may rename or delete these files at the same time
        size = sum(file.stat().st_size for path in others for file in path.glob("*")) / 2**20
        print(
            f"{partial.parent} holds {len(others)} more caches of {dataset.name}, {size:,.0f} MiB, made from"
            " other files, settings or readers; delete those that no run needs any more"
        )
