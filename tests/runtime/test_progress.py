"""Progress lines appear regularly in log files; rate and remaining time are correct after a resume."""

import sys
import time

import pytest

from core.runtime import progress


@pytest.fixture
def clock(monkeypatch):
    """Return a list of times in seconds. The replaced `time.monotonic` returns the last time of this list."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[-1])
    return times


def updates(clock, bar, first, last, seconds):
    for done in range(first, last + 1):
        clock.append(clock[-1] + seconds)
        bar.update(done, [("loss", 0.25)])


def test_a_log_file_gets_a_line_every_half_minute(clock, capsys):
    bar = progress.Progress(1000, "step")
    updates(clock, bar, 1, 1000, seconds=0.125)
    assert capsys.readouterr().out.splitlines() == [
        "step 240/1,000 [====................], loss 0.25, 8 steps/s, 1:35 left",
        "step 480/1,000 [=========...........], loss 0.25, 8 steps/s, 1:05 left",
        "step 720/1,000 [==============......], loss 0.25, 8 steps/s, 0:35 left",
        "step 960/1,000 [===================.], loss 0.25, 8 steps/s, 0:05 left",
    ]


def test_after_a_resume_rate_and_remaining_time_count_only_new_units(clock, capsys):
    bar = progress.Progress(1000, "step", done=900)
    updates(clock, bar, 901, 960, seconds=2)
    assert capsys.readouterr().out.splitlines()[-1].endswith("2 s/step, 1:20 left")


def test_slow_units_get_one_line_each(clock, capsys):
    bar = progress.Progress(3, "photo")
    updates(clock, bar, 1, 3, seconds=7200)
    assert capsys.readouterr().out.splitlines() == [
        "photo 1/3 [======..............], loss 0.25",
        "photo 2/3 [=============.......], loss 0.25, 7.2e+03 s/photo, 2:00:00 left",
        "photo 3/3 [====================], loss 0.25, 7.2e+03 s/photo",
    ]


def test_a_terminal_shows_one_line_that_is_redrawn(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bar = progress.Progress(4, "image")
    for _ in range(4):
        clock.append(clock[-1] + 1)
        bar.add()
    out = capsys.readouterr().out
    assert out.count("\r") == 4 and out.count("\n") == 1 and out.endswith("1 images/s\x1b[K\n")
    bar = progress.Progress(4, "image")
    clock.append(clock[-1] + 1)
    bar.add()
    bar.close()
    assert capsys.readouterr().out == "\rimage 1/4 [=====...............]\x1b[K\n"


def test_track_yields_its_items_and_removes_its_line_from_a_terminal(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for item in progress.track("abc", 3, "step"):
        clock.append(clock[-1] + 1)
    out = capsys.readouterr().out
    assert item == "c" and out.startswith("\rstep 1/3 [") and out.endswith("\r\x1b[K") and "\n" not in out
