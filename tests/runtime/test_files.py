"""NumPy archives are read completely or refused, and paths that cannot be written are refused."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

from core.runtime import files
from core.runtime.errors import InputError


def test_an_archive_with_any_byte_inverted_is_refused_or_read_correctly(tmp_path):
    """Some damaged archives are read correctly, because readers ignore some bytes of the Zip headers."""
    path, arrays = tmp_path / "arrays.npz", {"a": np.arange(9), "b": np.arange(3.0)}
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    refusals = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            found = files.read_arrays(path, arrays)
        except InputError:
            refusals += 1
        else:
            np.testing.assert_equal(found, arrays)
    assert refusals > len(whole) / 2


def test_an_archive_that_does_not_fit_into_memory_does_not_count_as_damaged(tmp_path, monkeypatch):
    def memory_is_full(*arguments, **options):
        raise MemoryError

    np.savez(tmp_path / "arrays.npz", a=np.arange(9))
    monkeypatch.setattr(np, "load", memory_is_full)
    with pytest.raises(MemoryError):
        files.read_arrays(tmp_path / "arrays.npz", ())


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT])
def test_a_disk_that_is_lost_does_not_count_as_a_damaged_archive(tmp_path, monkeypatch, number):
    def lost(*arguments, **options):
        raise OSError(number, os.strerror(number))

    np.savez(tmp_path / "arrays.npz", a=np.arange(9))
    monkeypatch.setattr(np, "load", lost)
    with pytest.raises(OSError, match=os.strerror(number)):
        files.read_arrays(tmp_path / "arrays.npz", ())


def test_the_limit_of_open_files_is_raised_but_never_lowered(monkeypatch):
    limits = [(256, resource.RLIM_INFINITY), (256, 1000), (8192, 9000)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[0])
    found = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, values: found.append(values))
    while limits:
        files.allow_open_files(4096)
        limits.pop(0)
    assert found == [(4096, resource.RLIM_INFINITY), (1000, 1000)]


@pytest.mark.parametrize(
    "path, cure",
    [
        ("missing/a.txt", "create its folder or name another place"),
        ("file/a.txt", "name another place"),
        (".", "it is a folder; name a file"),
        ("", "it is a folder; name a file"),
        ("folder", "name another place"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_with_its_cure(tmp_path, monkeypatch, path, cure):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    with refused(cure):
        files.write_text(Path(path), "text")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]


def test_data_is_on_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("replace") or replace(*paths))
    files.write_text(tmp_path / "a", "text")
    assert calls == ["fsync", "replace"]
