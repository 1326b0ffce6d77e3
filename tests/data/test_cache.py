"""The cache is decoded once for the same files, settings and reader; an interrupted one is continued."""

import contextlib
import dataclasses
import errno
import functools
import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pair
from PIL import Image
from PIL.ExifTags import Base as Tag

from core.data import (
    cache,
    cache_key,
    cityscapes_pairs,
    colours,
    images,
    patches,
    read_ahead,
    remarks,
    samples,
)
from core.runtime.errors import InputError


def road():
    return cityscapes_pairs.road_dataset(size=16, road_rgb=(128, 64, 128), road_tolerance=30)


def counting(dataset):
    """Return (a copy of the data set, read_files).

    For each example that the reader of the copy reads, it appends the name of the first file to read_files.
    """
    read_files = []

    def read(files, split):
        read_files.append(files[0].name)
        return dataset.read(files, split)

    return dataclasses.replace(dataset, read=read), read_files


def test_examples_equal_the_arrays_of_the_reader_in_file_order(pairs, tmp_path):
    train = cache.prepare(road(), pairs, "train", tmp_path / "cache")
    assert (train.images.shape, train.masks.shape) == ((6, 16, 16, 3), (6, 16, 16))
    for index, files in enumerate(train.files):
        photo, mask = road().read(files, "train")
        np.testing.assert_array_equal(train.images[index], photo[0])
        np.testing.assert_array_equal(train.masks[index], mask[0])
    expected = np.bincount(np.asarray(train.masks).ravel(), minlength=256)
    np.testing.assert_array_equal(train.class_pixels, expected)
    assert len(cache.prepare(road(), pairs, "train", tmp_path / "cache", limit=2)) == 2


def test_files_are_decoded_again_only_after_a_change_of_settings_or_content(pairs, tmp_path):
    dataset, read = counting(road())

    def prepare(dataset, pairs=pairs):
        read.clear()
        cache.prepare(dataset, pairs, "train", tmp_path / "cache")
        return len(read)

    assert prepare(dataset) == 6
    assert prepare(dataset) == 0
    assert prepare(dataset, pairs / ".." / pairs.name) == 0  # the same folder by another path
    assert prepare(dataclasses.replace(dataset, settings={"size": 8})) == 6
    (pairs / "train" / "3.jpg").chmod(0o640)
    with contextlib.suppress(OSError):  # some file systems have no hard links
        os.link(pairs / "train" / "3.jpg", tmp_path / "another name")
    assert prepare(dataset) == 0
    os.utime(pairs / "train" / "3.jpg", (1, 1))
    assert prepare(dataset) == 6


@pytest.mark.parametrize(
    "spoil",
    [
        lambda name, photos, masks: (photos, masks.astype(np.int64)),
        lambda name, photos, masks: (photos / np.float32(255), masks),
        lambda name, photos, masks: (photos, masks[..., None]),
        lambda name, photos, masks: (photos[0], masks[0]),
        lambda name, photos, masks: (photos[:, : int(name)], masks[:, : int(name)]),
    ],
    ids=["int64", "float", "a channel", "no example axis", "two sizes"],
)
def test_a_reader_with_wrong_dtypes_or_shapes_is_refused(pairs, tmp_path, spoil):
    road_set = road()

    def read(files, split):
        return spoil(files[0].stem, *road_set.read(files, split))

    dataset = dataclasses.replace(road_set, read=read)
    with pytest.raises(InputError, match=r"\.jpg: the reader returned"):
        cache.prepare(dataset, pairs, "train", tmp_path / "cache")


def test_a_file_may_hold_several_examples_and_the_data_set_selects_the_split(pairs, tmp_path):
    single = road()

    def read(files, split):
        repeats = int(files[0].stem)  # file 1.jpg gives one example, file 6.jpg six
        return tuple(np.repeat(part, repeats, axis=0) for part in single.read(files, split))

    several = dataclasses.replace(single, read=read, select=lambda owner, split: np.flatnonzero(owner == 2))
    train = cache.prepare(several, pairs, "train", tmp_path / "cache")
    np.testing.assert_array_equal(train.owner, np.repeat(np.arange(6), np.arange(1, 7)))
    assert len(train.images) == 21 and train.rows.tolist() == [3, 4, 5]


def locked(dataset, *names):
    """Return (a copy of the data set, refused, read_files).

    refused: a set of file names, at first `names`. The reader of the copy raises InputError for an example
    whose first file has one of these names. read_files: as described in `counting`.
    """
    dataset, read_files = counting(dataset)
    refused = set(names)

    def read(files, split):
        arrays = dataset.read(files, split)
        if files[0].name in refused:
            raise InputError(f"{files[0]}: permission denied")
        return arrays

    return dataclasses.replace(dataset, read=read), refused, read_files


def test_an_unreadable_file_is_named_and_files_decoded_before_are_kept(pairs, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(cache, "BLOCK", 2)
    monkeypatch.setattr(cache.progress.Progress, "close", lambda bar: closed.append(bar))
    dataset, refused, read = locked(dataclasses.replace(road(), name="pairs_v1.2"), "5.jpg")
    with pytest.raises(InputError, match="5.jpg"):
        cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert len(closed) == 1
    key = cache_key.digest(dataset, dataset.find(pairs, "train"))
    names = {path.name for path in (tmp_path / "cache/decoded").iterdir()}
    assert names == {f"pairs_v1.2-{key}.lock", f"pairs_v1.2-{key}.partial"}
    refused.clear()
    read.clear()
    assert len(cache.prepare(dataset, pairs, "train", tmp_path / "cache")) == 6
    assert sorted(read) == ["5.jpg", "6.jpg"]


def test_a_failing_disk_is_reported_for_the_photo_and_the_photo_is_not_left_out(pairs, tmp_path):
    def read(files, split):
        if files[0].name == "5.jpg":
            raise OSError(errno.EIO, "Input/output error")
        return road().read(files, split)

    failing = dataclasses.replace(road(), read=read)
    with pytest.raises(InputError, match=r"^.*/5.jpg: cannot be read now \(Input/output error\)"):
        cache.prepare(failing, pairs, "train", tmp_path / "cache", bad_share=0.5)
    assert not [path for path in (tmp_path / "cache/decoded").iterdir() if path.suffix == ""]


def test_a_file_left_out_for_its_permissions_is_read_once_it_becomes_readable(pairs, tmp_path, monkeypatch):
    dataset, refused, _ = locked(road(), "5.jpg")
    monkeypatch.setattr(os, "access", lambda path, mode: path.name not in refused)
    lengths = []
    for _ in range(2):
        lengths.append(len(cache.prepare(dataset, pairs, "train", tmp_path / "cache", bad_share=0.2)))
        refused.clear()
    assert lengths == [5, 6]


def test_unreadable_files_up_to_a_share_are_left_out_with_a_warning(pairs, tmp_path, capsys):
    for name in ("2.jpg", "5.jpg"):
        (pairs / "train" / name).write_bytes(b"no image")

    def prepare(share):
        return cache.prepare(road(), pairs, "train", tmp_path / "cache", bad_share=share)

    with pytest.raises(
        InputError,
        match=r"at least 2 of 6 photos or masks are unreadable, .*0.3; the first: .*2.jpg: not a read",
    ):
        prepare(0.3)
    for _ in range(2):  # the first call decodes, the second reads the cache
        capsys.readouterr()
        train = prepare(0.4)
        warned = capsys.readouterr().out
        assert "2.jpg: not a readable image" in warned and "5.jpg: not a readable image" in warned
        assert [path.name for (path,) in train.files] == ["1.jpg", "3.jpg", "4.jpg", "6.jpg"]
        assert len(train) == 4 and train.owner.tolist() == [0, 1, 2, 3]
        for image, files in zip(train.images, train.files):
            np.testing.assert_array_equal(image, road().read(files, "train")[0][0])
    with pytest.raises(InputError, match="^.*2.jpg: not a readable image"):
        prepare(0)  # the cache leaves out files, but this call allows none to be left out
    for path in (pairs / "train").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="at least 6 of 6 photos"):
        prepare(0.99)


@pytest.mark.parametrize("name", ["images.u8", "masks.u8", "index.json"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_cache_is_named(pairs, tmp_path, name, content):
    cache.prepare(road(), pairs, "train", tmp_path / "cache")
    (folder,) = (path for path in (tmp_path / "cache" / "decoded").iterdir() if path.is_dir())
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{folder}: damaged cache .*delete this folder"):
        cache.prepare(road(), pairs, "train", tmp_path / "cache")


def test_an_unreadable_cache_is_not_reported_as_damaged(pairs, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    cache.prepare(road(), pairs, "train", tmp_path / "cache")
    monkeypatch.setattr(np, "memmap", forbidden)
    with pytest.raises(PermissionError):
        cache.prepare(road(), pairs, "train", tmp_path / "cache")


def test_an_edited_reader_makes_a_new_cache(pairs, tmp_path, monkeypatch):
    dataset, read = counting(road())
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert len(read) == 6
    copy = tmp_path / "edited.py"
    copy.write_text(Path(cityscapes_pairs.__file__).read_text() + "# edited")
    os.utime(copy, (0, 0))  # edited before this process began
    monkeypatch.setattr(inspect, "getfile", lambda function: copy)
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert len(read) == 12


@pytest.mark.parametrize("module", [colours, images, patches, samples])
def test_an_edited_decoder_makes_a_new_cache(pairs, tmp_path, monkeypatch, module):
    files = road().find(pairs, "train")
    before = cache_key.digest(road(), files)
    (tmp_path / "edited.py").write_text("# edited")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "edited.py"))
    assert cache_key.digest(road(), files) != before


def test_a_killed_preparation_continues_from_its_last_index(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 2)

    class Killed(BaseException):
        pass

    def read_and_die(files, split):
        if files[0].name == "4.jpg":
            raise Killed
        return road().read(files, split)

    with pytest.raises(Killed):
        dying = dataclasses.replace(road(), read=read_and_die)
        cache.prepare(dying, pairs, "train", tmp_path / "cache")
    (partial,) = (tmp_path / "cache/decoded").glob("*.partial")
    dataset, read = counting(road())
    whole = (partial / "images.u8").read_bytes()
    for damage in ((partial / "images.u8").unlink, lambda: (partial / "images.u8").write_bytes(whole[:100])):
        damage()
        with pytest.raises(InputError, match="damaged cache .*images.u8.*; delete this folder"):
            cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    (partial / "images.u8").write_bytes(whole + b"torn")  # bytes written after the last index
    train = cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert sorted(read) == ["3.jpg", "4.jpg", "5.jpg", "6.jpg"]
    unbroken = cache.prepare(road(), pairs, "train", tmp_path / "other cache")
    assert train.checksum == unbroken.checksum
    assert train.class_pixels.tolist() == unbroken.class_pixels.tolist()
    assert train.split_hashes.tolist() == unbroken.split_hashes.tolist()
    for index, files in enumerate(train.files):
        np.testing.assert_array_equal(train.images[index], road().read(files, "train")[0][0])


def test_a_warning_names_readers_that_were_edited_after_the_start_of_the_process(
    pairs, tmp_path, monkeypatch, capsys
):
    """The name of the new cache may belong to the edited code, and the arrays to the old code."""
    dataset = dataclasses.replace(road(), generate=Path.mkdir)
    cache.prepare(dataset, pairs, "val", tmp_path / "cache")
    assert "edited after" not in capsys.readouterr().out
    monkeypatch.setattr(cache.filesystem, "STARTED", 0)
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert f"warning: {images.__file__}: edited after this process began" in capsys.readouterr().out
    cache.generated(dataset.name, dataset.generate, tmp_path / "cache")
    assert "street_scenes.py: edited after this process began" in capsys.readouterr().out


def test_generated_files_appear_completely_or_not_at_all(tmp_path):
    def generate(folder):
        folder.mkdir(exist_ok=True)
        (folder / "1.jpg").write_bytes(b"1")
        if not (tmp_path / "second try").exists():
            (tmp_path / "second try").touch()
            raise OSError("disk full")

    dataset = dataclasses.replace(road(), generate=generate)
    with pytest.raises(InputError, match="disk full"):
        cache.generated(dataset.name, dataset.generate, tmp_path)
    assert not [path for path in (tmp_path / "generated").iterdir() if path.suffix == ""]
    assert [path.name for path in cache.generated(dataset.name, dataset.generate, tmp_path).iterdir()] == [
        "1.jpg"
    ]


def test_checksums_are_equal_for_equal_photos_only(pairs, tmp_path):
    (pairs / "train" / "7.jpg").write_bytes((pairs / "train" / "2.jpg").read_bytes())
    train = cache.prepare(road(), pairs, "train", tmp_path / "cache")
    assert train.split_hashes.dtype == np.int64
    assert train.split_hashes[6] == train.split_hashes[1] and len(set(train.split_hashes.tolist())) == 6
    both = cache.prepare(road(), pairs, "all", tmp_path / "cache")
    val = cache.prepare(road(), pairs, "val", tmp_path / "cache")
    assert both.split_hashes.tolist() == [*train.split_hashes, *val.split_hashes]
    write_pair(pairs / "train" / "2.jpg", seed=1, road=(0, 0, 0))  # the same photo, another mask
    other = cache.prepare(road(), pairs, "train", tmp_path / "cache")
    assert other.split_hashes.tolist() == train.split_hashes.tolist() and other.checksum != train.checksum


def test_checksums_are_in_the_order_of_the_rows_of_the_split(pairs, tmp_path):
    chosen = dataclasses.replace(road(), select=lambda owner, split: np.array([4, 1]))
    train = cache.prepare(chosen, pairs, "train", tmp_path / "cache")
    assert train.split_hashes.tolist() == train.photo_hashes[[4, 1]].tolist()


def test_a_complete_cache_is_used_without_writing(pairs, tmp_path, monkeypatch):
    """Opening a lock file would fail in another user's cache and on a read-only file system."""
    dataset = dataclasses.replace(road(), generate=Path.mkdir)
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    folder = cache.generated(dataset.name, dataset.generate, tmp_path / "cache")

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache.filesystem, "lock", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert len(cache.prepare(dataset, pairs, "train", tmp_path / "cache")) == 6
    assert cache.generated(dataset.name, dataset.generate, tmp_path / "cache") == folder


def test_a_cache_is_read_where_the_file_system_has_no_shared_mappings(pairs, tmp_path, monkeypatch):
    expected = cache.prepare(road(), pairs, "train", tmp_path / "cache")
    memmap = np.memmap

    def private_only(path, dtype, mode, **options):
        if mode == "r":
            raise OSError(errno.ENODEV, "No such device")
        return memmap(path, dtype, mode, **options)

    monkeypatch.setattr(np, "memmap", private_only)
    examples = cache.prepare(road(), pairs, "train", tmp_path / "cache")
    np.testing.assert_array_equal(examples.images, expected.images)
    np.testing.assert_array_equal(examples.masks, expected.masks)


def test_a_warning_about_files_of_both_splits_is_printed_once(pairs, tmp_path, capsys):
    def read(files, split):
        remarks.add("turned", "files are turned")
        return road().read(files, split)

    both = dataclasses.replace(road(), read=read, find=lambda folder, split: road().find(folder, "val"))
    train = cache.prepare(both, pairs, "train", tmp_path / "cache")
    cache.prepare(both, pairs, "val", tmp_path / "cache", said=train.warnings)
    assert capsys.readouterr().out.count("warning: files are turned (3 such files in total)") == 1


def test_a_remark_that_find_adds_for_both_splits_is_kept_once(pairs, tmp_path):
    def find(folder, split):
        remarks.add("unlisted", "2 photos are in no list")
        return road().find(folder, split)

    asked = set()

    def read(files, split):
        asked.add(split)
        return road().read(files, split)

    searched = dataclasses.replace(road(), find=find, read=read)
    examples = cache.prepare(searched, pairs, "all", tmp_path / "cache")
    assert examples.warnings == ["2 photos are in no list"]
    assert asked == {"val"}  # as validation photos are decoded


def read_repeated(files, split, times=1):
    photos, masks = road().read(files, split)
    return np.repeat(photos, times, axis=0), np.repeat(masks, times, axis=0)


class Reader:
    def __call__(self, files, split):
        return read_repeated(files, split)


def test_readers_may_be_any_callable_and_the_key_includes_bound_arguments(pairs, tmp_path):
    readers = [functools.partial(read_repeated, times=2), functools.partial(read_repeated, times=3), Reader()]
    lengths = [
        len(cache.prepare(dataclasses.replace(road(), read=read), pairs, "train", tmp_path / "cache"))
        for read in readers
    ]
    assert lengths == [12, 18, 6]


def test_the_disk_space_of_other_caches_is_printed(pairs, tmp_path, capsys):
    for split in ("train", "val"):
        cache.prepare(road(), pairs, split, tmp_path / "cache")
    assert "more caches of" not in capsys.readouterr().out
    cache.prepare(road(), pairs, "val", tmp_path / "cache", limit=1)
    assert "holds 2 more caches of cityscapes_pairs, 0 MiB" in capsys.readouterr().out
    for folder in (tmp_path / "cache/decoded").glob("cityscapes_pairs-*[!k]"):
        (folder / "images.u8").unlink()
        (folder / "images.u8").symlink_to("nowhere")  # stat fails, as for a file that was just deleted
    assert len(cache.prepare(road(), pairs, "val", tmp_path / "cache", limit=2)) == 2


def test_pixels_are_counted_on_the_page_that_is_read(tmp_path):
    reduced, photo = Image.new("RGB", (4, 2)), Image.new("RGB", (64, 32))
    photo.encoderinfo = {"tiffinfo": {Tag.NewSubfileType: 0}}
    tags = {Tag.NewSubfileType: images.REDUCED}
    reduced.save(tmp_path / "a.tif", save_all=True, append_images=[photo], tiffinfo=tags)
    assert images.pages(tmp_path / "a.tif") == [1]
    assert cache._pixel_count((tmp_path / "a.tif",)) == 64 * 32


def test_read_ahead_is_limited_by_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "PIXELS_AHEAD", 5 * 64 * 32)
    files = []
    for number in range(40):
        files.append((tmp_path / f"{number}.png",))
        Image.new("RGB", (64, 32), (number, 0, 0)).save(files[-1][0])
    begun, lead = [], []

    def read(paths):
        begun.append(paths)
        return paths[0].stem

    with ThreadPoolExecutor() as pool:
        for done, stem in enumerate(read_ahead.ahead(pool, read, files, cache._pixel_count)):
            assert stem == str(done)
            lead.append(len(begun) - done)
    assert max(lead) <= 6
