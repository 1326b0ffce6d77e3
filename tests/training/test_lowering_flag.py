"""A run prints and records the lowering rules that it applied; without them, losses differ by rounding."""

import json

import pytest
from conftest import train_road

from core import lowering
from core.runs import run_folder
from core.training import loop


@pytest.fixture(autouse=True)
def the_default_mode_afterwards():
    yield
    lowering.configure("auto")


def train(pairs, folder, *arguments):
    """Train a small road network, by default for two epochs of two steps; return the rows of metrics.csv."""
    assert train_road(pairs, folder, "--epochs=2", *arguments) == 0
    return run_folder.read_metrics(folder)


def test_a_run_records_its_lowering_rules_and_losses_without_rules_are_close(pairs, tmp_path, capsys):
    lowered = train(pairs, tmp_path / "auto", "--epochs=1")
    assert "lowering: 1 x nearest_then_skip\n" in capsys.readouterr().out
    plain = train(pairs, tmp_path / "off", "--epochs=1", "--lowering=off")
    assert "lowering: no rule applied\n" in capsys.readouterr().out
    for with_rules, without in zip(lowered, plain, strict=True):
        assert with_rules["train_loss"] == pytest.approx(without["train_loss"], rel=1e-5)
    for name, rules in (("auto", {"nearest_then_skip": 1}), ("off", {})):
        assert json.loads((tmp_path / name / "summary.json").read_text())["lowering"] == rules


def test_continuing_with_another_lowering_gives_a_warning(pairs, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as interrupted:
        interrupted.setattr(loop.Training, "is_finished", lambda self: self.state.epoch == 1)
        train(pairs, tmp_path / "run")
    capsys.readouterr()
    rows = train(pairs, tmp_path / "run", "--lowering=off")
    out = capsys.readouterr().out
    assert len(rows) == 2 and "warning: this run began with --lowering=auto" in out and "bit-identical" in out
