"""Decoding once: keyed by what it was made from, whole or absent, resumable."""

import dataclasses
import errno
import inspect
import os
from pathlib import Path

import numpy as np
import pytest

from core.data import cache, cityscapes_pairs
from core.runtime.errors import InputError


def road():
    return cityscapes_pairs.road_dataset(size=16, road_rgb=(128, 64, 128), road_tolerance=30)


def counting(dataset):
    """The data set, and the list of the files it is asked to read."""
    read_files = []

    def read(files, split):
        read_files.append(files[0].name)
        return dataset.read(files, split)

    return dataclasses.replace(dataset, read=read), read_files


def test_examples_are_what_the_reader_reads_in_its_order(pairs, tmp_path):
    train = cache.prepare(road(), pairs, "train", tmp_path / "cache")
    assert (train.images.shape, train.masks.shape) == ((6, 16, 16, 3), (6, 16, 16))
    for index, files in enumerate(train.files):
        photo, mask = road().read(files, "train")
        np.testing.assert_array_equal(train.images[index], photo[0])
        np.testing.assert_array_equal(train.masks[index], mask[0])
    expected = np.bincount(np.asarray(train.masks).ravel(), minlength=256)
    np.testing.assert_array_equal(train.class_pixels, expected)
    assert len(cache.prepare(road(), pairs, "train", tmp_path / "cache", limit=2)) == 2


def test_nothing_is_read_twice_until_something_changes(pairs, tmp_path):
    dataset, read = counting(road())

    def prepare(dataset):
        read.clear()
        cache.prepare(dataset, pairs, "train", tmp_path / "cache")
        return len(read)

    assert prepare(dataset) == 6
    assert prepare(dataset) == 0
    assert prepare(dataclasses.replace(dataset, settings={"size": 8})) == 6
    os.utime(pairs / "train" / "3.jpg", (1, 1))
    assert prepare(dataset) == 6


@pytest.mark.parametrize(
    "spoil",
    [
        lambda name, photos, masks: (photos, masks.astype(np.int64)),
        lambda name, photos, masks: (photos / np.float32(255), masks),
        lambda name, photos, masks: (photos, masks[..., None]),
        lambda name, photos, masks: (photos[:, : int(name)], masks[:, : int(name)]),
    ],
    ids=["int64", "float", "a channel", "two sizes"],
)
def test_a_reader_that_makes_something_else_is_refused(pairs, tmp_path, spoil):
    road_set = road()

    def read(files, split):
        return spoil(files[0].stem, *road_set.read(files, split))

    dataset = dataclasses.replace(road_set, read=read)
    with pytest.raises(InputError, match=r"\.jpg: the reader made"):
        cache.prepare(dataset, pairs, "train", tmp_path / "cache")


def test_files_with_several_examples_and_a_chosen_split(pairs, tmp_path):
    single = road()

    def read(files, split):
        repeats = int(files[0].stem)  # 1.jpg gives one example, 6.jpg six
        return tuple(np.repeat(part, repeats, axis=0) for part in single.read(files, split))

    several = dataclasses.replace(single, read=read, select=lambda owner, split: np.flatnonzero(owner == 2))
    train = cache.prepare(several, pairs, "train", tmp_path / "cache")
    np.testing.assert_array_equal(train.owner, np.repeat(np.arange(6), np.arange(1, 7)))
    assert len(train.images) == 21 and train.rows.tolist() == [3, 4, 5]


def locked(dataset, *names):
    """The data set with unreadable files, their names, and the list of files it is asked to read."""
    dataset, read_files = counting(dataset)
    may_not = set(names)

    def read(files, split):
        photo_and_mask = dataset.read(files, split)
        if files[0].name in may_not:
            raise InputError(f"{files[0]}: permission denied")
        return photo_and_mask

    return dataclasses.replace(dataset, read=read), may_not, read_files


def test_a_bad_file_is_named_and_what_was_decoded_is_kept(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 2)
    dataset, may_not, read = locked(road(), "5.jpg")
    with pytest.raises(InputError, match="5.jpg"):
        cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache/decoded").iterdir()} == {".lock", ".partial"}
    may_not.clear()
    read.clear()
    assert len(cache.prepare(dataset, pairs, "train", tmp_path / "cache")) == 6
    assert sorted(read) == ["5.jpg", "6.jpg"]


def test_a_file_that_was_left_out_is_read_when_its_owner_lets_it(pairs, tmp_path):
    dataset, may_not, _ = locked(road(), "5.jpg")
    lengths = []
    for _ in range(2):
        lengths.append(len(cache.prepare(dataset, pairs, "train", tmp_path / "cache", bad_share=0.2)))
        may_not.clear()
        (pairs / "train" / "5.jpg").chmod(0o600)  # which keeps its size and its time of modification
    assert lengths == [5, 6]


def test_bad_files_are_left_out_and_named_up_to_a_share(pairs, tmp_path, capsys):
    for name in ("2.jpg", "5.jpg"):
        (pairs / "train" / name).write_bytes(b"no image")

    def prepare(share):
        return cache.prepare(road(), pairs, "train", tmp_path / "cache", bad_share=share)

    with pytest.raises(InputError, match=r"2 of 6 files are bad, .*0.3; the first: .*2.jpg: not a read"):
        prepare(0.3)
    for _ in range(2):  # decoded now, and taken from the cache
        capsys.readouterr()
        train = prepare(0.4)
        warned = capsys.readouterr().out
        assert "2.jpg: not a readable image" in warned and "5.jpg: not a readable image" in warned
        assert [path.name for (path,) in train.files] == ["1.jpg", "3.jpg", "4.jpg", "6.jpg"]
        assert len(train) == 4 and train.owner.tolist() == [0, 1, 2, 3]
        for image, files in zip(train.images, train.files):
            np.testing.assert_array_equal(image, road().read(files, "train")[0][0])
    with pytest.raises(InputError, match="^.*2.jpg: not a readable image"):
        prepare(0)  # what another run left out is not left out without asking
    for path in (pairs / "train").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="6 of 6 files"):
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


def test_a_cache_that_may_not_be_read_is_not_called_damaged(pairs, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    cache.prepare(road(), pairs, "train", tmp_path / "cache")
    monkeypatch.setattr(np, "memmap", forbidden)
    with pytest.raises(PermissionError):
        cache.prepare(road(), pairs, "train", tmp_path / "cache")


def test_an_edited_reader_gets_a_new_cache(pairs, tmp_path, monkeypatch):
    dataset, read = counting(road())
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert len(read) == 6
    copy = tmp_path / "edited.py"
    copy.write_text(Path(cityscapes_pairs.__file__).read_text() + "# edited")
    monkeypatch.setattr(inspect, "getfile", lambda function: copy)
    cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert len(read) == 12


def test_a_torn_preparation_goes_on_from_its_last_note(pairs, tmp_path, monkeypatch):
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
    (partial / "images.u8").write_bytes(whole + b"torn")  # bytes that came after the last note
    train = cache.prepare(dataset, pairs, "train", tmp_path / "cache")
    assert sorted(read) == ["3.jpg", "4.jpg", "5.jpg", "6.jpg"]
    unbroken = cache.prepare(road(), pairs, "train", tmp_path / "other cache")
    assert train.checksum == unbroken.checksum
    assert train.class_pixels.tolist() == unbroken.class_pixels.tolist()
    for index, files in enumerate(train.files):
        np.testing.assert_array_equal(train.images[index], road().read(files, "train")[0][0])


def test_generated_files_appear_whole_or_not_at_all(tmp_path):
    def generate(folder):
        folder.mkdir(exist_ok=True)
        (folder / "1.jpg").write_bytes(b"1")
        if not (tmp_path / "second try").exists():
            (tmp_path / "second try").touch()
            raise OSError("disk full")

    dataset = dataclasses.replace(road(), generate=generate)
    with pytest.raises(InputError, match="disk full"):
        cache.generated(dataset, tmp_path)
    assert not [path for path in (tmp_path / "generated").iterdir() if path.suffix == ""]
    assert [path.name for path in cache.generated(dataset, tmp_path).iterdir()] == ["1.jpg"]
