"""Decode a data set once into uint8 arrays on disk, which later calls memory-map.

The name of a cache contains a digest of everything that the arrays depend on (`core.data.cache_key`).
The cache grows block by block in a folder NAME.partial, whose index says how many files are done;
after an interruption, the next call continues from there. The complete folder is renamed to NAME and
never changes again, so that other users, or read-only mounts, can share it.

    images.u8, masks.u8   the arrays, uint8 [M, H, W, 3] and [M, H, W]
    index.json            the fields of `_Index`
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np

from core.data import cache_key, read_ahead, remarks
from core.data.synthetic import aerial_scenes, pet_scenes, street_scenes
from core.runtime import files as filesystem
from core.runtime import progress
from core.runtime.errors import InputError

BLOCK = 256  # number of files decoded between two updates of the index


@dataclasses.dataclass(frozen=True)
class Examples:
    """One decoded split of a data set.

    data_dir:      the folder of its files
    checksum:      CRC-32 of all pixels and class ids, in order
    images:        uint8 [M, H, W, 3], memory-mapped
    masks:         uint8 [M, H, W], class ids, memory-mapped
    rows:          int64 [N]: the indices, among the M examples, of the split's examples
    owner:         int64 [M]: for each example, the index in `files` of the files it comes from
    files:         the files found, without unreadable ones
    class_pixels:  int64 [256], number of pixels of each class id in masks
    photo_hashes:  int64 [M]: a hash of the pixels of each photo, equal for equal photos
    warnings:      sentences about files that were left out or read in an unexpected way
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

    @property
    def checksums(self):
        """Return the `photo_hashes` of the split's examples, int64 [N], in the order of `rows`."""
        return self.photo_hashes[self.rows]


@dataclasses.dataclass
class _Index:
    """The content of index.json: what is known about the files decoded so far."""

    examples: list = dataclasses.field(default_factory=list)  # number of examples in each file
    bad: list = dataclasses.field(default_factory=list)  # sentences about unreadable files
    remarks: list = dataclasses.field(default_factory=list)  # [kind, sentence], see core.data.remarks
    size: list = dataclasses.field(default_factory=lambda: [0, 0])  # height and width
    class_pixels: list = dataclasses.field(default_factory=lambda: [0] * 256)
    photo_hashes: list = dataclasses.field(default_factory=list)
    checksum: int = 0

    @classmethod
    def load(cls, path):
        """Read index.json. Raises KeyError if fields are missing or unknown."""
        values = json.loads(path.read_text())
        if values.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise KeyError("index.json has other fields")
        return cls(**values)

    def save(self, path):
        filesystem.write_text(path, json.dumps(dataclasses.asdict(self)))


def generated(dataset, cache_dir):
    """Return the folder of a data set's generated files, which the first call generates."""
    sources = [cache_key.source_file(dataset.generate)]
    sources += [module.__file__ for module in (aerial_scenes, pet_scenes, street_scenes)]
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in sources)).hexdigest()[:12]
    folder = cache_dir / "generated" / f"{dataset.name}-{digest}"
    if not folder.exists():
        with _building(folder):
            if not folder.exists():  # another process may have generated the files while this one waited
                partial = folder.with_suffix(".partial")
                dataset.generate(partial)
                partial.rename(folder)
    return folder


def load_split(dataset, flags, split, *, said=()):
    """Call `prepare` with arguments taken from the flags that all experiments share."""
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
    """Return the `Examples` of a split, decoded now or taken from the cache.

    data_dir: a folder that `dataset.find` understands, or None for generated files.
    split: "train", "val", or "all": the examples of both, read as for "val".
    limit: if above 0, only the first `limit` files are used.
    bad_share: the share of files, below 1, that may be unreadable; they are left out with a
    warning each. Raises InputError that names the first unreadable file if there are more.
    said: warnings that are not printed again: the other split, which may have the same files, gave them.
    """
    data_dir = Path(data_dir) if data_dir else generated(dataset, cache_dir)
    with remarks.collect() as found_remarks:
        files = _find(dataset, data_dir, split)[: limit or None]
    folder = cache_dir / "decoded" / f"{dataset.name}-{cache_key.digest(dataset, files)}"
    if not folder.exists():
        with _building(folder):
            if not folder.exists():  # another process may have decoded the files while this one waited
                _decode(dataset, files, split, folder, bad_share)
    index, images, masks = _load(folder)
    _refuse(index.bad, len(files), bad_share)
    left_out = [f"left out: {sentence}" for sentence in index.bad]
    warnings = [*left_out, *remarks.summary([*found_remarks, *index.remarks])]
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
    """Return (index, images, masks) of a complete cache."""
    with _damage_named(folder):
        index = _Index.load(folder / "index.json")
        shape = (sum(index.examples), *index.size)
        images = _map(folder / "images.u8", (*shape, 3))
        masks = _map(folder / "masks.u8", shape)
    return index, images, masks


def _map(path, shape):
    """Memory-map a file as an array, uint8.

    If a network file system refuses shared mappings (ENODEV), a private mapping with equal content is used.
    """
    try:
        return np.memmap(path, np.uint8, "r", shape=shape)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return np.memmap(path, np.uint8, "c", shape=shape)


@contextlib.contextmanager
def _damage_named(folder):
    """Convert exceptions raised by reading a damaged cache into an InputError that names its folder."""
    try:
        yield
    except (FileNotFoundError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: damaged cache ({error}); delete this folder.") from None


@contextlib.contextmanager
def _building(folder):
    """Hold an exclusive lock for making a folder; other processes that make the same folder wait."""
    with filesystem.writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.lock(folder.with_suffix(".lock"), wait=True):
            yield


def _refuse(bad, total, bad_share):
    """Raise InputError if the share of bad files exceeds the allowed share."""
    if len(bad) > bad_share * total:
        count = f"{len(bad)} of {total} files are bad, more than --max_bad_share={bad_share:g}; the first: "
        raise InputError((count if bad_share else "") + bad[0])


def _decode(dataset, files, split, folder, bad_share):
    """Decode the files into the partial folder, after those already decoded, then rename the folder."""
    _mention_other_caches(dataset, folder)
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    index, sizes = _load_partial(partial)
    print(f"decoding {len(files)} files into {folder}")
    bar = progress.Progress(len(files), "file", done=len(index.examples))
    read = functools.partial(_read, dataset, split)
    with (
        _appendable(partial / "images.u8", sizes["images.u8"]) as images,
        _appendable(partial / "masks.u8", sizes["masks.u8"]) as masks,
    ):
        while len(index.examples) < len(files):
            block = files[len(index.examples) :][:BLOCK]
            for paths, result in zip(block, read_ahead.read_ahead(read, block)):
                bar.add(1)
                _append(index, result, paths[0], images, masks)
                _refuse(index.bad, len(files), bad_share)
            for file in (images, masks):
                file.flush()
                os.fsync(file.fileno())
            index.save(partial / "index.json")
    partial.rename(folder)


def _load_partial(partial):
    """Return (index, array file -> expected bytes) of a partial folder; a new folder has an empty index."""
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
    """Read one item: return ((photos, masks), remarks), or an error message if the item is unreadable."""
    with remarks.collect() as collected:
        try:
            return dataset.read(files, "val" if split == "all" else split), collected
        except InputError as error:
            return str(error)


def _append(index, result, path, images, masks):
    """Write the examples of one file and add them to the index."""
    if isinstance(result, str):
        index.examples.append(0)
        index.bad.append(result)
        return
    (photos, class_ids), file_remarks = result
    _check_arrays(photos, class_ids, index.size, path)
    images.write(photos.tobytes())
    masks.write(class_ids.tobytes())
    index.checksum = zlib.crc32(class_ids.tobytes(), zlib.crc32(photos.tobytes(), index.checksum))
    index.examples.append(len(class_ids))
    index.remarks += file_remarks
    index.size = list(class_ids.shape[1:])
    index.class_pixels = (index.class_pixels + np.bincount(class_ids.ravel(), minlength=256)).tolist()
    index.photo_hashes += map(photo_hash, photos)


def photo_hash(photo):
    """Return a 64-bit BLAKE2b hash of a photo's pixels, uint8 [H, W, 3], as a signed int."""
    digest = hashlib.blake2b(photo.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _check_arrays(photos, masks, size, path):
    """Raise InputError unless the arrays have the dtypes and shapes that `Dataset.read` requires."""
    shapes = photos.shape == (*masks.shape, 3) and tuple(size) in ((0, 0), masks.shape[1:])
    if not shapes or photos.dtype != np.uint8 or masks.dtype != np.uint8:
        raise InputError(
            f"{path}: the reader returned {photos.dtype} {list(photos.shape)} and {masks.dtype}"
            f" {list(masks.shape)}; it must return uint8 [K, H, W, 3] and [K, H, W], with the same height"
            " and width for all files."
        )


def _appendable(path, size):
    """Truncate a file to its first `size` bytes and open it for appending."""
    file = open(path, "r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _mention_other_caches(dataset, folder):
    """Print the disk space that other caches of the same data set use."""
    others = [path for path in folder.parent.glob(f"{dataset.name}-*") if path.is_dir()]
    others = [path for path in others if path.stem != folder.name]
    if len(others) > 1:  # the first other cache may hold the other split of the same data
        size = sum(file.stat().st_size for path in others for file in path.glob("*")) / 2**20
        print(
            f"{folder.parent} holds {len(others)} more caches of {dataset.name}, {size:,.0f} MiB, made from"
            " other files, settings or readers; delete those that no run needs any more"
        )
