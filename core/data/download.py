"""Files from the web: fetched whole and checked, unpacked with no way out of their folder."""

import contextlib
import gzip
import hashlib
import http.client
import json
import lzma
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import PurePosixPath

from core.runtime import files, progress
from core.runtime.errors import InputError

BLOCK = 2**18  # bytes read at once
DAMAGED = (  # what the readers of archives raise
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, KeyError, ValueError, RecursionError),
)


def fetch(url, path, *, sha256=None, tries=6, timeout=30.0, pause=1.0):
    """Make path the file at url, whole and checked.

    What an interrupted download brought stays in `.NAME.partial` beside path, and
    the next one asks for the rest alone, if the server still has the same file. A
    file that is at path already is checked, and neither fetched nor changed.

    sha256:  hexadecimal digest that the file must have. None: the first file's is
             printed and recorded in `NAME.sha256`; later ones must have that one.
    timeout: seconds without a byte that end a try.
    pause:   seconds before the second try, doubled before each one after it.

    Raises InputError where the server refuses, no try brings the file, or the
    digest is another.
    """
    record = path.with_name(f"{path.name}.sha256")
    recorded = sha256 is None and record.exists()
    if recorded:
        sha256 = record.read_text(errors="replace").partition(" ")[0].strip()
    fetched = not path.exists()
    file = path.with_name(f".{path.name}.partial") if fetched else path
    if fetched:
        _download(url, file, path, tries=tries, timeout=timeout, pause=pause)
    print(f"checking {path}")
    digest = _sha256(file)
    if sha256 not in (None, digest):
        if fetched:
            _forget(file)
        raise InputError(
            f"{url if fetched else path}: sha256 is {digest}, not {sha256} as"
            f" {f'recorded in {record}' if recorded else 'published'};"
            f" {'run the command again' if fetched else 'move the file away'} to fetch it anew"
            f"{', or remove the record to accept another file' if recorded else ''}."
        )
    if fetched:
        os.replace(file, path)
        _forget(file)
    if sha256 is None:
        print(f"sha256 {digest}: no published one is known, so this one is recorded in {record}")
        files.write_text(record, f"{digest}  {path.name}\n")  # as `sha256sum --check` reads it


def unpack(archive, folder):
    """Make folder the top folder of that name in a tar archive, compressed or not, whole or not at all.

    Plain files and folders alone are ever written, a hard link as a copy; owners and
    permissions in the archive count for nothing. Raises InputError for a damaged
    archive, one without such a folder, and one with a member that would lie outside,
    cannot be written or is of another kind: a symbolic link, a device, a pipe, a file
    with holes, which may be of any size; OSError where a folder of that name has files
    in it already.
    """
    cure = "move the file away to fetch it anew"
    partial = folder.with_name(f".{folder.name}.unpacking")
    if partial.exists():
        shutil.rmtree(partial)  # what a killed process left
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _unpack_member(archive, tar, member, partial)
            while tar.fileobj.read(BLOCK):  # gzip checks its sum at the very end, beyond the tar's
                pass
        if not (partial / folder.name).is_dir():
            raise InputError(f"{archive}: holds no folder {folder.name}/; {cure}.")
        os.sync()  # one call for all the files, before the name says that they are whole
        (partial / folder.name).rename(folder)
    except DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise InputError(f"{archive}: damaged archive ({reason}); {cure}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(url, partial, path, *, tries, timeout, pause):
    """Fill partial until it holds the whole file; path is where the user may put one instead."""
    cure = f"fetch the file another way and put it at {path}"
    for attempt in range(1, tries + 1):
        try:
            return _try(url, partial, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise InputError(f"{url}: the server answers {error.code} {error.reason}; {cure}.") from None
        except ConnectionError as error:
            reason = error
        print(f"{url}: {reason} (try {attempt} of {tries})")
        if attempt < tries:
            time.sleep(pause * 2 ** (attempt - 1))
    raise InputError(
        f"{url}: not fetched in {tries} tries, the last of which ended with: {reason};"
        f" run the command again later, or {cure}."
    )


def _try(url, partial, *, timeout):
    """One request, for what partial lacks. Raises ConnectionError where another may do better.

    A note beside partial says which file of the server's it is a part of: its length
    and its validator, the entity tag or else the time of its last change. Without
    both, a download starts from the beginning.
    """
    note = _note(partial)
    known = json.loads(note.read_text()) if note.exists() and partial.exists() else {}
    done = partial.stat().st_size if known.get("url") == url else 0
    length = known["length"] if done else None
    if done and done == length:
        return
    headers = {"User-Agent": "raw-unet"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": known["validator"]}
    with _network_errors():
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the server's file has become shorter than our part
                _forget(partial)
            raise
    with response:
        validator = _validator(response)
        if response.status == 206:
            # a server may ignore If-Range: what it sends must be the rest of the same file
            span = f"bytes {done}-{(length or 0) - 1}/{length}"
            if response.headers["Content-Range"] != span or validator != known["validator"]:
                _forget(partial)
                raise ConnectionError("the file on the server has changed")
        else:
            done, length = 0, response.length
        size = f", {length / 1e6:.1f} MB" if length else ""
        print(f"fetching {url}{size}{f', going on from byte {done}' if done else ''}")
        bar = progress.bar(length and length / 1e6, "MB")
        with open(partial, "ab" if done else "wb") as file:
            if not done:
                note.unlink(missing_ok=True)
                if length and validator:
                    files.write_text(note, json.dumps({"url": url, "length": length, "validator": validator}))
            try:
                while length is None or done < length:
                    with _network_errors():
                        block = response.read1(BLOCK if length is None else min(BLOCK, length - done))
                    if not block:
                        break
                    file.write(block)
                    done += len(block)
                    bar.update(done / 1e6)
            finally:
                if done != length:
                    bar.update(done / 1e6, finalize=True)  # ends the line
            file.flush()
            os.fsync(file.fileno())
        if length is not None and done < length:
            raise ConnectionError(f"the connection closed after {done} of {length} bytes")


@contextlib.contextmanager
def _network_errors():
    """What another try may cure comes out of the block as ConnectionError with a reason."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code not in (408, 416, 429):
            raise
        raise ConnectionError(f"the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(getattr(error, "reason", None) or error or type(error).__name__) from None


def _validator(response):
    """What a file's identity hangs on, or None; a weak entity tag does not vouch for bytes."""
    tag = response.headers["ETag"] or ""
    return tag if tag.startswith('"') else response.headers["Last-Modified"]


def _note(partial):
    return partial.with_name(f"{partial.name}.json")


def _forget(partial):
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _unpack_member(archive, tar, member, folder):
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{archive}: {member.name!r} would lie outside its folder; do not use this archive.")
    path = folder / name
    plain = (member.isreg() or member.islnk()) and not member.issparse() and member.size >= 0
    content = tar.extractfile(member) if plain else None
    if content is None and not member.isdir():
        raise InputError(f"{archive}: {member.name!r} is neither file nor folder; do not use this archive.")
    try:
        (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            with open(path, "wb") as file:
                shutil.copyfileobj(content, file)
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise InputError(
            f"{archive}: {member.name!r} cannot be written ({error.strerror}); make room for it, or do"
            " not use this archive."
        ) from None
