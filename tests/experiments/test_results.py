"""The published results: result files are made from run folders, and tables from result files."""

import dataclasses
import shutil

import pytest

from core.runs import run_folder
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import cityscape_road
from experiments.results import __main__ as results
from experiments.results import record, tables


def command(arguments):
    return results.run(cli.parse(results.define_flags, arguments))


def test_a_result_file_contains_the_metrics_and_command_of_its_run(road_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    command([f"--add={road_run}", "--name=road_tiny_s0", "--settings=better", "--commit=abc"])
    text = (tmp_path / "road_tiny_s0.csv").read_text()
    result = tables.groups(tmp_path)["road_tiny"][0]
    assert str(road_run.parent) not in text  # no paths of this machine
    assert result.header["command"] == (
        "python -m experiments.cityscape_road --batch_size=2 --data_dir=DIR --epochs=2 --size=32"
    )
    assert result.header["seed"] == "0" and result.header["commit"] == "abc"
    for row, published in zip(run_folder.read_metrics(road_run), result.epochs, strict=True):
        assert published == pytest.approx(row, rel=1e-5)


def test_a_table_shows_mean_and_sample_deviation_of_the_last_epochs(tmp_path):
    header = "# settings: better\n# data: two pairs\n# minutes: 1\nepoch,val_iou\n"
    (tmp_path / "road_best_s0.csv").write_text(header + "1,0.9\n2,0.5\n")
    (tmp_path / "road_best_s1.csv").write_text(header + "1,0.1\n2,0.7\n")
    (line,) = (line for line in tables.groups_table(tables.groups(tmp_path)).splitlines() if "best`" in line)
    assert "0.6000 ± 0.1414" in line  # 0.5 and 0.7
    assert "road IoU 0.8000 ± 0.1414" in line  # best epochs: 0.9 in run s0, 0.7 in run s1


def test_published_results_are_not_replaced_and_a_seed_must_be_the_runs(road_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    trained = record.command((road_run / "flags.cfg").read_text())
    published = f"# command: {trained}\n# settings: better\n# data: two pairs\nepoch,val_iou\n1,0.9\n"
    (tmp_path / "road_old_s1.csv").write_text(published)
    published = f"# images: {record.images(road_run)}\n{published}"
    (tmp_path / "road_tiny_s0.csv").write_text(published)
    (tmp_path / "road_other_s1.csv").write_text(published.replace("# images: ", "# images: 1"))
    with pytest.raises(InputError, match="the other runs of road_other have other images"):
        command([f"--add={road_run}", "--name=road_other_s0"])
    with pytest.raises(InputError, match="give --data='two pairs' if"):
        command([f"--add={road_run}", "--name=road_old_s0"])
    other = published.replace(" --size", " --dice=1 --seed=1 --tensorboard --size")
    (tmp_path / "road_dice_s1.csv").write_text(other)
    with pytest.raises(InputError, match="the other runs of road_dice have other values of --dice;"):
        command([f"--add={road_run}", "--name=road_dice_s0"])
    with pytest.raises(InputError, match="road_tiny_s0.csv: already exists"):
        command([f"--add={road_run}", "--name=road_tiny_s0"])
    assert (tmp_path / "road_tiny_s0.csv").read_text() == published
    with pytest.raises(InputError, match="must end with _s0, because the run's seed is 0"):
        command([f"--add={road_run}", "--name=road_tiny_s7"])
    with pytest.raises(InputError, match="--data=all: the other runs of road_tiny have 'two pairs'"):
        command([f"--add={road_run}", "--name=road_tiny_s7", "--data=all"])
    with pytest.raises(InputError, match="pets stands for oxford_pets, but .* is no run of it"):
        command([f"--add={road_run}", "--name=pets_tiny_s0"])


def test_a_run_that_trains_more_epochs_is_refused(road_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    run = shutil.copytree(road_run, tmp_path / "run")
    rows = (run / "metrics.csv").read_text().splitlines()
    (run / "metrics.csv").write_text("\n".join([*rows, rows[-1].replace("2,", "3,", 1)]) + "\n")
    with pytest.raises(InputError, match="the training of more epochs has begun"):
        command([f"--add={run}", "--name=road_tiny_s0"])


def test_a_run_with_a_larger_number_of_epochs_to_train_is_refused(road_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    run = shutil.copytree(road_run, tmp_path / "run")
    run_folder.record_flag(run, "epochs", 9)
    with pytest.raises(InputError, match="the training of more epochs has begun"):
        command([f"--add={run}", "--name=road_tiny_s0"])


def test_metrics_that_depend_on_the_batch_size_are_left_out_for_another_batch_size(road_run, monkeypatch):
    monkeypatch.setattr(record, "article", lambda name: ScriptWithMeasure)
    texts = {"settings": "", "data": "", "machine": "", "commit": "", "remark": ""}
    *_, columns, _, last = record.text(road_run, **texts).splitlines()
    cells = dict(zip(columns.split(","), last.split(",")))
    assert cells["val_iou"] == "" and cells["val_accuracy"] != ""


class ScriptWithMeasure:
    """The script of `cityscape_road`, but with the metric iou among the `measures` of the experiment."""

    define_flags = cityscape_road.define_flags

    @staticmethod
    def experiment(flags):
        return dataclasses.replace(cityscape_road.experiment(flags), measures={"iou": None})


def test_write_replaces_only_the_text_between_the_marks_in_both_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    paths = [tmp_path / name for name in ("README.md", "BUILD_NOTES.md")]
    for path in paths:
        path.write_text("above\n<!-- results -->\nold\n<!-- end of results -->\nbelow\n")
    command(["--write"])
    found = tables.groups()
    for path, table in zip(paths, (tables.articles_table(found), tables.groups_table(found))):
        expected = f"above\n<!-- results -->\n{table}<!-- end of results -->\nbelow\n"
        assert path.read_text(encoding="utf-8") == expected
    paths[0].write_text("<!-- results -->\nold\n")
    with pytest.raises(InputError, match="README.md: has no lines"):
        command(["--write"])
    paths[1].unlink()
    with pytest.raises(InputError, match="--add, --write: .* holds an installed copy of the project"):
        command(["--write"])
    assert paths[0].read_text() == "<!-- results -->\nold\n"


def test_a_remark_of_several_lines_is_refused():
    with pytest.raises(InputError, match="--remark.*must be a single line"):
        command(["--remark=one\ntwo"])


def test_a_name_that_fits_no_group_is_refused(road_run):
    with pytest.raises(InputError, match="begin with one of road"):
        command([f"--add={road_run}", "--name=other"])
