"""Download a file completely or not at all."""

import contextlib
import hashlib
import socket
import sys

import tensorflow as tf

from core.runtime.errors import InputError

SILENCE_SECONDS = 20  # a download fails if the server sends nothing for this time


def fetch(url, path, cure, *, sha256=None):
    """Download the file at `url` to `path`. A file that already exists at `path` is kept.

    path: its folder must exist, and only one process at a time may download to it. The file appears at `path`
    only when it is complete. cure: a text that says what the user can do if the download fails. sha256: the
    file's SHA-256 digest in hexadecimal, or None if the digest is unknown.

    Raises InputError if the download fails; the message consists of the URL, the reason and `cure`. Also
    raises InputError if sha256 is given, and the downloaded or the existing file has another digest.
    """
    if path.is_file():
        if sha256 and _sha256(path) != sha256:
            raise InputError(
                f"{path}: its SHA-256 digest is not {sha256}; delete this file, and run the command again."
            )
        return
    # another name during the download, because a killed download leaves an incomplete file
    target = path.with_name(f".{path.name}.partial")
    target.unlink(missing_ok=True)
    hashed = {"file_hash": sha256, "hash_algorithm": "sha256"}
    try:
        with _socket_timeout(), _quiet_unless_terminal():
            tf.keras.utils.get_file(target.name, url, cache_dir=path.parent, cache_subdir="", **hashed)
    except Exception as error:  # get_file raises several classes, among them Exception itself
        target.unlink(missing_ok=True)
        # Keras' message often ends with: -- REASON
        reason = str(error).rpartition(" -- ")[2].rstrip(".") or type(error).__name__
        raise InputError(f"{url}: download failed ({reason}); {cure}.") from None
    target.rename(path)


def _sha256(path):
    """Return the SHA-256 digest of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def _socket_timeout():
    """Context manager: sockets that are created inside the with block have the timeout SILENCE_SECONDS."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _quiet_unless_terminal():
    """Context manager: Keras prints a progress bar only in a terminal.

    Otherwise `get_file` would print a line for each update of the progress bar.
    """
    before = tf.keras.utils.is_interactive_logging_enabled()
    if not sys.stdout.isatty():
        tf.keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if before:
            tf.keras.utils.enable_interactive_logging()
