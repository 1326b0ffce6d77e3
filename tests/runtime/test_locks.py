"""File locks: refused at once, waited for, and missing on some file systems."""

import errno
import fcntl
import os
import threading
from concurrent import futures

import pytest

from core.runtime import files
from core.runtime.errors import InputError


def test_a_lock_that_another_process_holds_is_refused_at_once(tmp_path):
    with files.lock(tmp_path / ".lock"), pytest.raises(InputError, match="^in use$"):
        with files.lock(tmp_path / ".lock", busy="in use"):
            pass


def test_waiting_for_a_lock_ends_when_the_lock_is_released(tmp_path, monkeypatch, capsys):
    blocked, flock = threading.Event(), fcntl.flock

    def noted(file, operation):
        if operation == fcntl.LOCK_EX:  # the call that waits has no LOCK_NB
            blocked.set()
        return flock(file, operation)

    def wait_for_lock():
        with files.lock(tmp_path / ".lock"):
            pass

    monkeypatch.setattr(fcntl, "flock", noted)
    with futures.ThreadPoolExecutor() as pool:
        with files.lock(tmp_path / ".lock"):
            waiting = pool.submit(wait_for_lock)
            assert blocked.wait(30)
            assert not futures.wait([waiting], timeout=0.2).done
        waiting.result(timeout=30)
    assert (
        f"waiting for another process, which holds the lock {tmp_path / '.lock'}" in capsys.readouterr().out
    )


def test_the_lock_file_of_another_user_is_locked_without_writing(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_bytes(b"another user's file")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with files.lock(tmp_path / ".lock"), pytest.raises(InputError, match="^in use$"):
        with files.lock(tmp_path / ".lock", busy="in use"):
            pass
    assert (tmp_path / ".lock").read_bytes() == b"another user's file"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.lock(tmp_path / "lock", busy="in use"):
        told = capsys.readouterr().out
    assert told.startswith(f"warning: {tmp_path / 'lock'}: this file system has no locks")
