"""core.data.download and its verb, against a server that stalls, truncates, changes its mind and lies."""

import contextlib
import gzip
import hashlib
import http.server
import io
import random
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from core.data import cityscapes_pairs, download
from core.runtime import files
from core.runtime.errors import InputError
from experiments import download as verb

OLD = random.Random(1).randbytes(700_000)
NEW = random.Random(2).randbytes(700_000)
ETAG, DATE = '"one"', "Mon, 01 Jan 2024 00:00:00 GMT"
STALL = 30.0  # seconds
REST = {"tries": 4, "timeout": 10.0, "pause": 0.0}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server on 127.0.0.1: .answers, one for each request in turn, the last for all others; .seen."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.close_connection = True
            state.seen.append(dict(self.headers))
            with contextlib.suppress(ConnectionError):
                state.answers[min(len(state.seen), len(state.answers)) - 1](self)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = SimpleNamespace(
        answers=[], seen=[], url=f"http://127.0.0.1:{web.server_port}/set.tar.gz", over=threading.Event()
    )
    web.over = state.over  # ends the stalls
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.over.set()
    web.shutdown()
    web.server_close()
    thread.join()


def sends(data, *, etag=ETAG, date=DATE, stop=None, stall=False, ranges=True, if_range=True, claim=None):
    """An answer: data, as its headers claim, but for those given.

    stop: bytes of the body after which it closes the connection, or stalls.
    ranges, if_range: whether it minds Range, If-Range. claim: a false Content-Length.
    """

    def answer(handler):
        start = 0
        asked = handler.headers["Range"]
        if asked and ranges and (not if_range or handler.headers["If-Range"] in (etag, date)):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in (("ETag", etag), ("Last-Modified", date)):
            if value:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data) - start if claim is None else claim))
        handler.end_headers()
        handler.wfile.write(data[start:stop])
        handler.wfile.flush()
        if stall:
            handler.server.over.wait(STALL)

    return answer


def fails(code):
    return lambda handler: handler.send_error(code)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_is_recorded_and_not_fetched_again(server, tmp_path, capsys):
    server.answers = [sends(OLD)]
    path = tmp_path / "set.tar.gz"
    for _ in range(2):
        download.fetch(server.url, path, **REST)
        assert path.read_bytes() == OLD
        assert left(tmp_path) == ["set.tar.gz", "set.tar.gz.sha256"]
    assert len(server.seen) == 1
    assert (tmp_path / "set.tar.gz.sha256").read_text() == f"{sha256(OLD)}  set.tar.gz\n"
    assert sha256(OLD) in capsys.readouterr().out


@pytest.mark.parametrize("validators", [(ETAG, DATE), (None, DATE), ('W/"one"', DATE), (ETAG, None)])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, validators):
    etag, date = validators
    good = sends(OLD, etag=etag, date=date)
    server.answers = [sends(OLD, etag=etag, date=date, stop=300_000), good]
    path = tmp_path / "set.tar.gz"
    download.fetch(server.url, path, sha256=sha256(OLD), **REST)
    assert path.read_bytes() == OLD
    assert left(tmp_path) == ["set.tar.gz"]
    assert "Range" not in server.seen[0]
    assert server.seen[1]["Range"] == "bytes=300000-"
    assert server.seen[1]["If-Range"] == (ETAG if etag == ETAG else DATE)


def test_a_stall_ends_a_try(server, tmp_path):
    server.answers = [sends(OLD, stop=300_000, stall=True), sends(OLD)]
    path = tmp_path / "set.tar.gz"
    began = time.monotonic()
    download.fetch(server.url, path, **REST | {"timeout": 1.0})
    assert time.monotonic() - began < STALL / 2
    assert path.read_bytes() == OLD
    assert server.seen[1]["Range"] == "bytes=300000-"


def test_the_next_call_goes_on_too(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    server.answers = [sends(OLD, stop=300_000), sends(OLD)]
    with pytest.raises(InputError, match="300000 of 700000"):
        download.fetch(server.url, path, **REST | {"tries": 1})
    assert not path.exists()
    assert (tmp_path / ".set.tar.gz.partial").read_bytes() == OLD[:300_000]
    download.fetch(server.url, path, **REST)
    assert path.read_bytes() == OLD
    assert server.seen[1]["Range"] == "bytes=300000-"


def test_what_is_whole_but_unchecked_is_not_asked_for_again(server, tmp_path, monkeypatch):
    path = tmp_path / "set.tar.gz"
    server.answers = [sends(OLD)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "_sha256", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        download.fetch(server.url, path, **REST)
    assert not path.exists()
    download.fetch(server.url, path, **REST)
    assert path.read_bytes() == OLD
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("then", "data", "requests"),
    [
        (sends(OLD, ranges=False), OLD, 2),
        (sends(NEW, etag='"two"', date=None), NEW, 2),
        (sends(NEW, etag='"two"', if_range=False), NEW, 3),  # 206, but from another file
        (sends(NEW[:600_000], if_range=False), NEW[:600_000], 3),  # the same tag, another length
        (sends(NEW[:200_000], etag='"two"', if_range=False), NEW[:200_000], 3),  # 416
    ],
    ids=["ignores Range", "changed", "changed, ignores If-Range", "other length", "shorter"],
)
def test_nothing_is_spliced(server, tmp_path, then, data, requests):
    server.answers = [sends(OLD, stop=300_000), then]
    path = tmp_path / "set.tar.gz"
    download.fetch(server.url, path, **REST)
    assert path.read_bytes() == data
    assert server.seen[1]["Range"] == "bytes=300000-"
    assert len(server.seen) == requests
    assert left(tmp_path) == ["set.tar.gz", "set.tar.gz.sha256"]


def test_without_a_validator_it_starts_over(server, tmp_path):
    bare = {"etag": None, "date": None}
    server.answers = [sends(OLD, stop=300_000, **bare), sends(OLD, **bare)]
    path = tmp_path / "set.tar.gz"
    download.fetch(server.url, path, **REST)
    assert path.read_bytes() == OLD
    assert "Range" not in server.seen[1]


def test_a_part_of_another_address_is_not_used(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    server.answers = [sends(OLD, stop=300_000), sends(NEW)]
    with pytest.raises(InputError):
        download.fetch(server.url, path, **REST | {"tries": 1})
    download.fetch(server.url + "?mirror", path, **REST)
    assert path.read_bytes() == NEW
    assert "Range" not in server.seen[1]


@pytest.mark.parametrize(
    "answer",
    [
        sends(OLD, claim=800_000),
        sends(OLD, claim=800_000, ranges=False),
        fails(503),
        lambda handler: handler.connection.shutdown(socket.SHUT_RDWR),
        lambda handler: handler.wfile.write(b"no HTTP at all\r\n\r\n"),
    ],
    ids=["claims too much", "and ignores Range", "503", "hangs up", "no HTTP"],
)
def test_tries_are_bounded(server, tmp_path, answer):
    server.answers = [answer]
    with pytest.raises(InputError, match="not fetched in 3 tries") as error:
        download.fetch(server.url, tmp_path / "set.tar.gz", **REST | {"tries": 3})
    assert server.url in str(error.value) and str(tmp_path / "set.tar.gz") in str(error.value)
    assert len(server.seen) == 3
    assert not (tmp_path / "set.tar.gz").exists()


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    server.answers = [fails(503), fails(404)]
    with pytest.raises(InputError, match="404 Not Found"):
        download.fetch(server.url, path, **REST)
    assert len(server.seen) == 2
    server.answers = [fails(404), fails(404), fails(503), sends(OLD)]
    download.fetch(server.url, path, **REST)
    assert path.read_bytes() == OLD


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.tar.gz"
        with pytest.raises(InputError, match="refused"):
            download.fetch(url, tmp_path / "set.tar.gz", **REST)


@pytest.mark.parametrize("cut", [False, True])
def test_a_chunked_body(server, tmp_path, cut):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(OLD), 100_000):
            handler.wfile.write(b"186a0\r\n" + OLD[start : start + 100_000] + b"\r\n")
        handler.wfile.write(b"" if cut and len(server.seen) == 1 else b"0\r\n\r\n")

    server.answers = [answer]
    download.fetch(server.url, tmp_path / "set.tar.gz", **REST)
    assert (tmp_path / "set.tar.gz").read_bytes() == OLD
    assert len(server.seen) == 1 + cut


@pytest.mark.parametrize("answer", [sends(NEW), sends(OLD, claim=600_000)], ids=["lies", "claims too little"])
def test_a_file_with_another_digest_is_refused(server, tmp_path, answer):
    server.answers = [answer, sends(OLD)]
    path = tmp_path / "set.tar.gz"
    with pytest.raises(InputError, match=f"not {sha256(OLD)} as published"):
        download.fetch(server.url, path, sha256=sha256(OLD), **REST)
    assert left(tmp_path) == []
    download.fetch(server.url, path, sha256=sha256(OLD), **REST)
    assert path.read_bytes() == OLD


def test_a_users_own_file_is_checked_and_kept(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    path.write_bytes(OLD)
    download.fetch(server.url, path, sha256=sha256(OLD), **REST)
    path.write_bytes(NEW)
    with pytest.raises(InputError, match="move the file away") as error:
        download.fetch(server.url, path, sha256=sha256(OLD), **REST)
    assert str(path) in str(error.value)
    assert path.read_bytes() == NEW and server.seen == []


def test_a_record_holds_for_the_next_time(server, tmp_path):
    path, record = tmp_path / "set.tar.gz", tmp_path / "set.tar.gz.sha256"
    server.answers = [sends(OLD), sends(NEW)]
    download.fetch(server.url, path, **REST)
    path.unlink()
    with pytest.raises(InputError, match="recorded in .*set.tar.gz.sha256.*remove the record"):
        download.fetch(server.url, path, **REST)
    assert left(tmp_path) == ["set.tar.gz.sha256"] and sha256(OLD) in record.read_text()
    record.unlink()
    download.fetch(server.url, path, **REST)
    assert path.read_bytes() == NEW and sha256(NEW) in record.read_text()


# Archives


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o6777
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


FOLDER = member("set", type=tarfile.DIRTYPE)


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_unpack(tmp_path, mode):
    pairs = (member("set/a/1.jpg", b"one"), member("set/b", type=tarfile.LNKTYPE, linkname="set/a/1.jpg"))
    beside = member("._set", b"beside")
    path = archive(tmp_path / "set.tar.gz", beside, FOLDER, *pairs, mode=mode)
    (tmp_path / ".set.unpacking").mkdir()
    (tmp_path / ".set.unpacking" / "left").touch()
    download.unpack(path, tmp_path / "set")
    assert left(tmp_path) == ["set", "set.tar.gz"]
    assert (tmp_path / "set/a/1.jpg").read_bytes() == (tmp_path / "set/b").read_bytes() == b"one"
    assert not (tmp_path / "set/a/1.jpg").stat().st_mode & 0o6111  # neither set-uid nor executable
    assert (tmp_path / "set/b").stat().st_nlink == 1


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped", b"out")],
        [member("set/../../escaped", b"out")],
        [member("ABSOLUTE", b"out")],
        [member("set/link", type=tarfile.SYMTYPE, linkname="../.."), member("set/link/escaped", b"out")],
        [member("set/link", type=tarfile.SYMTYPE, linkname="ABSOLUTE"), member("set/link", b"out")],
        [member("set/in", b"in"), member("set/link", type=tarfile.SYMTYPE, linkname="in")],
        [member("set/link", type=tarfile.LNKTYPE, linkname="../precious"), member("set/link", b"out")],
        [member("set/link", type=tarfile.LNKTYPE, linkname="PRECIOUS"), member("set/link", b"out")],
        [member("set/link", type=tarfile.LNKTYPE, linkname="set")],
        [member("set/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        [member("set/disk", type=tarfile.BLKTYPE, devmajor=8)],
        [member("set/pipe", type=tarfile.FIFOTYPE)],
        [member("../up", type=tarfile.DIRTYPE)],
    ],
)
def test_no_member_leaves_the_folder(tmp_path, members):
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_bytes(b"precious")
    names = {"ABSOLUTE": str(tmp_path / "escaped"), "PRECIOUS": str(home / "precious")}
    for info, _ in members:
        info.name = names.get(info.name, info.name)
        info.linkname = names.get(info.linkname, info.linkname)
    path = archive(home / "set.tar.gz", FOLDER, member("set/1.jpg", b"one"), *members)
    with pytest.raises(InputError, match="set.tar.gz: "):
        download.unpack(path, home / "set")
    assert left(tmp_path) == ["home"] and left(home) == ["precious", "set.tar.gz"]
    assert (home / "precious").read_bytes() == b"precious"


def test_a_damaged_archive_leaves_nothing(tmp_path):
    path = archive(tmp_path / "set.tar.gz", FOLDER, member("set/1.jpg", OLD))
    whole = path.read_bytes()
    flipped = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    cut_tar = gzip.decompress(whole)[:400_000]
    no_folder = archive(path, member("other/1.jpg", b"one")).read_bytes()
    cut = (whole[:-9], whole[:100_000], cut_tar, gzip.compress(cut_tar))
    for data in (*cut, flipped, no_folder, b"<html>", b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match="^[^\n]*set.tar.gz: .*; move the file away[^\n]*$"):
            download.unpack(path, tmp_path / "set")
        assert left(tmp_path) == ["set.tar.gz"]
        assert path.read_bytes() == data
    path.write_bytes(whole)
    download.unpack(path, tmp_path / "set")
    assert (tmp_path / "set/1.jpg").read_bytes() == OLD


def test_an_existing_folder_is_not_replaced(tmp_path):
    path = archive(tmp_path / "set.tar.gz", FOLDER, member("set/1.jpg", b"one"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine").write_bytes(b"mine")
    with pytest.raises(OSError):
        download.unpack(path, tmp_path / "set")
    assert left(tmp_path / "set") == ["mine"] and left(tmp_path) == ["set", "set.tar.gz"]


# The verb


@pytest.fixture
def pairs(server, tmp_path, monkeypatch):
    """The pairs' archive on the local server; -> (run, data_dir)."""
    names = ("train/1.jpg", "train/2.jpg", "val/1.jpg")
    path = archive(tmp_path / "served", *(member(f"cityscapes/{name}", name.encode()) for name in names))
    server.answers = [sends(path.read_bytes())]
    monkeypatch.setattr(verb, "ARCHIVES", {"cityscapes_pairs": ((server.url, "cityscapes", None),)})
    data_dir = tmp_path / "new" / "data"
    return lambda: verb.run(SimpleNamespace(data_dir=str(data_dir)), ["cityscapes_pairs"]), data_dir


def test_the_loader_reads_what_the_verb_fetched(server, pairs, capsys):
    run, data_dir = pairs
    assert not run()
    found = [path for split in ("train", "val") for (path,) in cityscapes_pairs.find(data_dir, split)]
    assert [path.read_text() for path in found] == ["train/1.jpg", "train/2.jpg", "val/1.jpg"]
    capsys.readouterr()
    assert not run()
    assert "cityscapes: there already" in capsys.readouterr().out
    assert len(server.seen) == 1


def test_ctrl_c_and_a_second_process(pairs, monkeypatch):
    run, data_dir = pairs
    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run()
    with files.lock(data_dir / ".download.lock", wait=False):
        with pytest.raises(InputError, match="another download"):
            run()
    assert not run()
    assert (data_dir / "cityscapes/val/1.jpg").exists()


@pytest.mark.parametrize("arguments", [[], ["pets"], ["oxford_pets", "cityscapes_pairs"]])
def test_the_name_is_one_of_those_listed(arguments):
    with pytest.raises(InputError, match="give one of oxford_pets, cityscapes_pairs, "):
        verb.run(SimpleNamespace(data_dir="nowhere"), arguments)
    assert not Path("nowhere").exists()


def test_fetching_needs_a_folder():
    with pytest.raises(InputError, match="--data_dir"):
        verb.run(SimpleNamespace(data_dir=None), ["oxford_pets"])


@pytest.mark.parametrize("name", verb.BY_HAND)
def test_steps_by_hand(name, capsys):
    assert verb.run(SimpleNamespace(data_dir="/data"), [name]) == 0
    out = capsys.readouterr().out
    assert "--data_dir=/data" in out and "{" not in out
    assert verb.run(SimpleNamespace(data_dir="/my data"), [name]) == 0
    assert capsys.readouterr().out.replace("'/my data'", "/data") == out


def test_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "experiments.download", "cityscapes", f"--data_dir={tmp_path}/here"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert f"unzip -n {tmp_path}/here/gtFine_trainvaltest.zip" in done.stdout
    assert left(tmp_path) == []
