"""Downloads from a local server, and archives that must not be unpacked."""

import hashlib
import http.server
import io
import tarfile
import threading
from types import SimpleNamespace

import pytest
import tensorflow as tf
from conftest import file_size_limit

from core.data import cityscapes_pairs
from core.runtime import files
from core.runtime.errors import InputError
from experiments import download

NAMES = ("train/1.jpg", "train/2.jpg", "val/1.jpg")


def packed(*members):
    """Return a gzipped tar archive as bytes. members: pairs (dict of `TarInfo` fields, content as bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for fields, content in members:
            member = tarfile.TarInfo()
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


GOOD = packed(*(({"name": f"cityscapes/{name}"}, name.encode()) for name in NAMES))


@pytest.fixture
def server():
    """Start a server on 127.0.0.1; return a namespace with its state.

    content: the bytes that the server sends; if None, the server sends error 404. length: the Content-Length
    that the server sends; if None, the true length. requests: the number of requests so far. url: the address
    of the content.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests += 1
            if state.content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(state.length or len(state.content)))
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{web.server_port}/set.tar.gz"
    state = SimpleNamespace(content=GOOD, length=None, requests=0, url=url)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    web.shutdown()
    web.server_close()
    thread.join()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Return a function (sha256=None) -> exit code. It downloads the server's archive into tmp_path/data."""

    if not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python cannot unpack archives safely")

    def run(sha256=None):
        archives = {"cityscapes_pairs": ((server.url, "cityscapes", sha256),)}
        monkeypatch.setattr(download, "ARCHIVES", archives)
        return download.run(SimpleNamespace(data_dir=str(tmp_path / "data")), ["cityscapes_pairs"])

    return run


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_reader_finds_downloaded_files_and_a_second_call_keeps_them(server, fetch, tmp_path):
    assert fetch(hashlib.sha256(GOOD).hexdigest()) == 0
    found = [
        path for split in ("train", "val") for (path,) in cityscapes_pairs.find(tmp_path / "data", split)
    ]
    assert [path.read_text() for path in found] == list(NAMES)
    (tmp_path / "data/cityscapes/train/1.jpg").write_text("edited")
    assert fetch() == 0
    assert (tmp_path / "data/cityscapes/train/1.jpg").read_text() == "edited"
    assert server.requests == 1


@pytest.mark.parametrize(
    ("content", "length", "sha256", "reason"),
    [
        (None, None, None, "Not Found"),
        (GOOD, len(GOOD) + 1000, None, "retrieval incomplete"),
        (GOOD, None, "0" * 64, "hash does not match"),
    ],
    ids=["404", "cut", "another digest"],
)
def test_a_failed_download_gives_one_sentence_and_leaves_no_archive(
    server, fetch, tmp_path, content, length, sha256, reason
):
    server.content, server.length = content, length
    with pytest.raises(InputError, match=f"^{server.url}: download failed .*{reason}.*; run the command"):
        fetch(sha256)
    assert contents(tmp_path / "data") == [".download.lock"]
    server.content, server.length = GOOD, None
    assert fetch() == 0


def test_a_killed_download_begins_again(fetch, monkeypatch):
    def killed(name, url, *, cache_dir, **options):
        (cache_dir / name).write_bytes(GOOD[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tf.keras.utils, "get_file", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert fetch() == 0


def test_a_users_archive_with_another_digest_is_kept(server, fetch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set.tar.gz").write_bytes(b"a part")
    with pytest.raises(InputError, match="set.tar.gz: its SHA-256 digest is not 0"):
        fetch("0" * 64)
    assert (tmp_path / "data/set.tar.gz").read_bytes() == b"a part" and server.requests == 0


INSIDE = ({"name": "cityscapes/train/1.jpg"}, b"1")
HOSTILE = {
    "path above": packed(INSIDE, ({"name": "../escaped"}, b"out")),
    "absolute path through a link": packed(
        INSIDE,
        ({"name": "cityscapes/link", "type": tarfile.SYMTYPE, "linkname": "/tmp"}, b""),
        ({"name": "cityscapes/link/escaped"}, b"out"),
    ),
    "hard link to a file outside": packed(
        INSIDE, ({"name": "cityscapes/x", "type": tarfile.LNKTYPE, "linkname": "../../precious"}, b"")
    ),
    "device": packed(INSIDE, ({"name": "cityscapes/null", "type": tarfile.CHRTYPE}, b"")),
    "cut": GOOD[:-20],
    "web page": b"<html>",
    "empty": b"",
    "another folder": packed(({"name": "other/1.jpg"}, b"1")),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_cannot_be_unpacked_safely_is_refused_and_leaves_nothing(
    server, fetch, tmp_path, content
):
    (tmp_path / "precious").write_text("precious")
    server.content = content
    with pytest.raises(InputError, match="set.tar.gz: cannot be unpacked to .*; delete the archive") as error:
        fetch()
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == ["data", "precious"]
    assert contents(tmp_path / "data") == [".download.lock", "set.tar.gz"]


def test_a_full_disk_while_unpacking_does_not_count_as_a_damaged_archive(server, fetch, tmp_path):
    server.content = packed(({"name": "cityscapes/train/1.jpg"}, bytes(100_000)))
    with file_size_limit(50_000), pytest.raises(InputError, match="free some space in .*data or make it"):
        fetch()
    assert contents(tmp_path / "data") == [".download.lock", "set.tar.gz"]
    assert fetch() == 0 and server.requests == 1


def test_two_downloads_into_one_folder_are_refused(fetch, tmp_path):
    (tmp_path / "data").mkdir()
    with files.lock(tmp_path / "data/.download.lock"):
        with pytest.raises(InputError, match="another download"):
            fetch()


@pytest.mark.parametrize("arguments", [[], ["pets"], ["oxford_pets", "cityscapes_pairs"]])
def test_an_unknown_name_and_a_missing_folder_are_refused(arguments):
    with pytest.raises(InputError, match="give one of oxford_pets, cityscapes_pairs, "):
        download.run(SimpleNamespace(data_dir="nowhere"), arguments)
    with pytest.raises(InputError, match="--data_dir"):
        download.run(SimpleNamespace(data_dir=None), ["oxford_pets"])


def test_a_python_that_cannot_unpack_safely_is_refused(monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(InputError, match="oxford_pets: this Python cannot unpack archives safely"):
        download.run(SimpleNamespace(data_dir="nowhere"), ["oxford_pets"])


@pytest.mark.parametrize("name", download.BY_HAND)
def test_printed_download_steps_contain_the_folder(name, capsys):
    assert download.run(SimpleNamespace(data_dir="/my data"), [name]) == 0
    out = capsys.readouterr().out
    assert "--data_dir='/my data'" in out and "{" not in out
