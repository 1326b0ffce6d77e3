"""File locks, with the functions of this system and with a stand-in for the module `msvcrt` of Windows."""

import errno
import os
import types
from concurrent import futures

import pytest

from core.runtime import files, locks


@pytest.fixture(params=["this system", "Windows"])
def system(request, monkeypatch):
    """Run each test twice: with this system's locks, and with the Windows locks of a simulated `msvcrt`.

    The simulated `msvcrt` holds the names of the locked files in a set.
    """
    if request.param == "this system":
        return
    held, opened = set(), {}

    def locking(descriptor, mode, size):
        name = opened[descriptor]
        if name in held:
            raise OSError(13, "Permission denied")
        held.add(name)

    def acquire(file, *, wait):
        opened[file.fileno()] = file.name
        original(file, wait=wait)

    original = locks.acquire
    msvcrt = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", msvcrt, raising=False)
    monkeypatch.setattr(locks, "acquire", acquire)
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: held.clear())  # as if the other process ended


def test_a_lock_that_another_process_holds_is_refused_at_once(system, tmp_path):
    with files.lock(tmp_path / ".lock", wait=True), pytest.raises(BlockingIOError):
        with files.lock(tmp_path / ".lock", wait=False):
            pass


def test_waiting_for_a_lock_ends_when_the_lock_is_released(system, tmp_path):
    def wait_for_lock():
        with files.lock(tmp_path / ".lock", wait=True):
            pass

    if locks.fcntl:
        with futures.ThreadPoolExecutor() as pool:
            with files.lock(tmp_path / ".lock", wait=True):
                waiting = pool.submit(wait_for_lock)
                assert not futures.wait([waiting], timeout=0.2).done
            waiting.result(timeout=30)
        return
    with files.lock(tmp_path / ".lock", wait=False), files.lock(tmp_path / ".lock", wait=True):
        pass


@pytest.mark.skipif(locks.fcntl is None, reason="Windows has its own locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with files.lock(tmp_path / "lock", wait=False):
        told = capsys.readouterr().out
    assert told.startswith(f"warning: {tmp_path / 'lock'}: this file system has no locks")
