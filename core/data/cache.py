"""Decode a data set once into raw uint8 arrays on disk, memory-mapped from then on.

A cache is keyed by all that it was made from: the files' paths, sizes and times,
the data set's settings, and the code that reads it. It grows block by block in a
`.partial` folder whose index says how far it is; a killed preparation goes on from
there, and the folder takes its final name when it is whole.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import itertools
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from core.data import images as image_reading
from core.runtime import files as filesystem
from core.runtime import progress
from core.runtime.errors import InputError

BLOCK = 256  # files between two notes of how far it is


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split, decoded.

    data_dir:      the folder that it comes from
    checksum:      CRC-32 of all pixels and class ids
    images:        uint8 [M, H, W, 3], memory-mapped
    masks:         uint8 [M, H, W], class ids, memory-mapped
    rows:          int64 [N]: which of the M make up the split
    owner:         int64 [M]: the index in files of the files each comes from
    files:         the files found, without those that could not be read
    class_pixels:  int64 [256], pixels of each class id in masks
    """

    data_dir: Path
    checksum: int
    images: np.ndarray
    masks: np.ndarray
    rows: np.ndarray
    owner: np.ndarray
    files: list
    class_pixels: np.ndarray

    def __len__(self):
        return len(self.rows)


def generated(dataset, cache_dir):
    """The folder of a data set's generated files; writes them the first time."""
    layout = Path(inspect.getfile(dataset.generate))
    painters = sorted(Path(__file__).parent.glob("*_scenes.py"))
    source = hashlib.sha256(b"".join(path.read_bytes() for path in (layout, *painters))).hexdigest()[:12]
    folder = cache_dir / "generated" / f"{dataset.name}-{source}"
    with _building(folder):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            dataset.generate(partial)
            partial.rename(folder)
    return folder


def load_split(dataset, flags, split):
    """`prepare`, as the flags that all experiments have ask for it."""
    return prepare(
        dataset,
        flags.data_dir,
        split,
        Path(flags.cache_dir),
        limit=flags.limit,
        bad_share=flags.skip_bad_images and flags.max_bad_share,
    )


def prepare(dataset, data_dir, split, cache_dir, *, limit=0, bad_share=0.0):
    """`Examples` of a split, of at most `limit` files if limit > 0.

    data_dir: a folder that `dataset.find` understands; None for generated files.
    bad_share: which share of the files, below 1, may be left out because they can't
    be read; each is named in a warning line. Raises InputError that names the first
    of them, in the data set's order, where there are more.
    """
    data_dir = Path(data_dir) if data_dir else generated(dataset, cache_dir)
    files = list(dataset.find(data_dir, split))[: limit or None]
    folder = cache_dir / "decoded" / f"{dataset.name}-{_key(dataset, files)}"
    with _building(folder):
        if not folder.exists():
            _decode(dataset, files, split, folder, bad_share)
    with _whole(folder):
        index = json.loads((folder / "index.json").read_text())
        examples, shape = index["examples"], (sum(index["examples"]), *index["size"])
        images = np.memmap(folder / "images.u8", np.uint8, "r", shape=(*shape, 3))
        masks = np.memmap(folder / "masks.u8", np.uint8, "r", shape=shape)
    _refuse(index["bad"], len(files), bad_share)
    for sentence in index["bad"]:
        print(f"warning: left out: {sentence}")
    files = [each for each, count in zip(files, examples) if count]
    owner = np.repeat(np.arange(len(files)), [count for count in examples if count])
    return Examples(
        data_dir=data_dir,
        checksum=index["checksum"],
        images=images,
        masks=masks,
        rows=dataset.select(owner, split),
        owner=owner,
        files=files,
        class_pixels=np.array(index["class_pixels"], np.int64),
    )


@contextlib.contextmanager
def _whole(folder):
    """A block that reads a folder of the cache; damage in it names the folder, as InputError."""
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: damaged cache ({error}); delete this folder.") from None


@contextlib.contextmanager
def _building(folder):
    """The right to make a folder: another process that wants it waits, and then finds it."""
    with filesystem.writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.lock(folder.with_suffix(".lock"), wait=True):
            yield


def _refuse(bad, total, bad_share):
    """Raise InputError where more than a share of the files are bad, or any if it is 0."""
    if len(bad) > bad_share * total:
        count = f"{len(bad)} of {total} files are bad, more than --max_bad_share={bad_share:g}; the first: "
        raise InputError((count if bad_share else "") + bad[0])


def _decode(dataset, files, split, folder, bad_share):
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    index_file = partial / "index.json"
    index = {"examples": [], "bad": [], "size": [0, 0], "class_pixels": [0] * 256, "checksum": 0}
    with _whole(partial):
        if index_file.exists():
            index = json.loads(index_file.read_text())
        masks_bytes = sum(index["examples"]) * index["size"][0] * index["size"][1]
        sizes = {"images.u8": 3 * masks_bytes, "masks.u8": masks_bytes}
        for name, size in sizes.items():
            if size and (partial / name).stat().st_size < size:
                raise ValueError(f"{name} is shorter than index.json says")
    print(f"decoding {len(files)} files into {folder}")
    bar = progress.Progress(len(files), "file", done=len(index["examples"]))

    def read(files):
        try:
            return dataset.read(files, split)
        except InputError as error:
            return str(error)

    with (
        _appendable(partial / "images.u8", sizes["images.u8"]) as images,
        _appendable(partial / "masks.u8", sizes["masks.u8"]) as masks,
        ThreadPoolExecutor() as pool,
    ):
        while len(index["examples"]) < len(files):
            block = files[len(index["examples"]) :][:BLOCK]
            examples, bad, size = list(index["examples"]), list(index["bad"]), index["size"]
            pixels, checksum = np.array(index["class_pixels"]), index["checksum"]
            for paths, result in zip(block, pool.map(read, block)):
                bar.add(1)
                if isinstance(result, str):
                    examples.append(0)
                    bad.append(result)
                    _refuse(bad, len(files), bad_share)
                    continue
                photo, mask = result
                _check_arrays(photo, mask, size, paths[0])
                images.write(photo.tobytes())
                masks.write(mask.tobytes())
                checksum = zlib.crc32(mask.tobytes(), zlib.crc32(photo.tobytes(), checksum))
                examples.append(len(mask))
                size = mask.shape[1:]
                pixels += np.bincount(mask.ravel(), minlength=256)
            for file in (images, masks):
                file.flush()
                os.fsync(file.fileno())
            index = {
                "examples": examples,  # in each of the files so far
                "bad": bad,  # why some could not be read
                "size": size,
                "class_pixels": pixels.tolist(),
                "checksum": checksum,
            }
            filesystem.write_text(index_file, json.dumps(index))
    partial.rename(folder)


def _check_arrays(photo, mask, size, path):
    """Raise InputError for arrays that are not those of `Dataset.read`, of the size of those before."""
    shapes = photo.shape == (*mask.shape, 3) and tuple(size) in ((0, 0), mask.shape[1:])
    if not shapes or photo.dtype != np.uint8 or mask.dtype != np.uint8:
        raise InputError(
            f"{path}: the reader made {photo.dtype} {list(photo.shape)} and {mask.dtype} {list(mask.shape)}"
            " of it; uint8 [K, H, W, 3] and [K, H, W] it must be, all files of one height and width."
        )


def _appendable(path, size):
    """A file open for appending after its first `size` bytes; the rest is cut off."""
    file = open(path, "r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _key(dataset, files):
    """A digest of all that the pixels depend on; not of the split, which may share its files.

    Raises InputError for a path that could not be printed.
    """
    digest = hashlib.sha256()
    for function in (dataset.read, image_reading.read_rgb):  # who edits a reader gets a new cache
        digest.update(Path(inspect.getfile(function)).read_bytes())
    digest.update(json.dumps(dict(dataset.settings), sort_keys=True).encode())
    for path in itertools.chain.from_iterable(files):
        status = path.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"  # the latter for what chmod mends
        if not filesystem.is_utf8(path.absolute()):
            raise InputError(f"{path.absolute()}: not in UTF-8; change the name.")
        digest.update(f"{path.absolute()}\n{status.st_size} {times}\n".encode())
    return digest.hexdigest()[:16]
