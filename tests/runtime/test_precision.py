"""With --precision=auto, a new run measures both precisions, and a continued run keeps its precision."""

import tensorflow as tf

from core.runs import run_folder
from core.runtime import precision
from experiments import cityscape_road


def test_both_precisions_are_measured(monkeypatch):
    dtypes, conv2d = set(), tf.nn.conv2d
    monkeypatch.setattr(tf.nn, "conv2d", lambda x, *args, **o: dtypes.add(x.dtype) or conv2d(x, *args, **o))
    seconds = precision.step_seconds(seconds=0)
    assert dtypes == {tf.float32, tf.bfloat16}
    assert seconds.keys() == {"float32", "bfloat16"} and min(seconds.values()) > 0


def test_auto_records_the_faster_precision_and_a_resume_keeps_it(start, tmp_path, monkeypatch, capsys):
    def train(faster):
        slower = {"float32": 0.2, "bfloat16": 0.2}
        monkeypatch.setattr(precision, "step_seconds", lambda: slower | {faster: 0.1})
        assert start("run", "--epochs=1", "--precision=auto") == 0
        return capsys.readouterr().out

    printed = train("bfloat16")
    assert "--precision=auto: bfloat16; a test step took 200.0 ms in float32, 100.0 ms in bfloat16" in printed
    assert run_folder.read_flags(tmp_path / "run", cityscape_road.define_flags).precision == "bfloat16"
    printed = train("float32")
    assert "--precision=auto: bfloat16, with which this run began" in printed
    assert "this run is finished" in printed
