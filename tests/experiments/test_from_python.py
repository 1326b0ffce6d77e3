"""The Python example in README.md, run as it is written."""

import re

import numpy as np
from conftest import ROOT, refused
from PIL import Image

import experiments
from core import ops
from core.inference import arrays
from core.runs import code_digest
from core.runtime import cli
from experiments import predict

MARK = "<!-- tested by tests/experiments/test_from_python.py -->"


def test_the_python_example_predicts_an_array_and_trains_with_an_edited_op(
    road_run, small_articles, tmp_path, monkeypatch
):
    (lines,) = re.findall(rf"{MARK}\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(lines.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/cityscape_road").symlink_to(road_run)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    # monkeypatch restores the original op after the test
    monkeypatch.setattr(ops, "conv2d_up", ops.conv2d_up)
    small = "--size=16", "--limit=4", f"--data_dir={road_run.parent / 'pairs'}"
    train = experiments.train
    monkeypatch.setattr(experiments, "train", lambda script, *flags: train(script, *flags, *small))
    names = {}
    exec(lines, names)
    assert names["class_ids"].shape == (1, 40, 56) and names["class_ids"].dtype == np.uint8
    assert code_digest.read(tmp_path / "runs/relu")[0]["files"]["core/ops.py:conv2d_up"]
    assert (tmp_path / "runs/relu/predictions/epoch_002.png").exists()


def test_predicting_an_array_equals_predicting_its_file(road_run, small_articles, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 45, 70, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    arguments = [f"--run_dir={road_run}", f"--output_dir={tmp_path / 'out'}"]
    assert predict.run(cli.parse(predict.define_flags, arguments), [str(tmp_path)]) == 0
    run = experiments.load(road_run)
    class_ids = arrays.predict(run, pixels)
    assert arrays.predict(run, pixels[:0]).shape == (0, 45, 70)
    with refused("not float32 [2, 45, 70, 3]"):
        arrays.predict(run, pixels / np.float32(255))
    with refused("not uint8 [45, 70, 3]"):
        arrays.predict(run, pixels[0])
    assert arrays.predict(run, pixels[:, :0]).shape == (2, 0, 70)
    with refused("the photos differ in size"):
        arrays.predict(run, [pixels[0], pixels[1, 1:]])
    for number in range(2):
        written = np.asarray(Image.open(tmp_path / "out" / f"{number}_labels.png"))
        np.testing.assert_array_equal(class_ids[number], written)
