"""An exported network is loaded without this project and gives what predict gives."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import python
from PIL import Image

from core.inference import decision, export, photos, predict, restore
from core.runtime.errors import InputError
from experiments import article

FOREIGN = """
import json, sys
import numpy as np, tensorflow as tf
folder = sys.argv[1]
segment = tf.saved_model.load(folder + "/saved_model").signatures["serving_default"]
card = json.load(open(folder + "/model.json"))
for size in ((1, 32, 32), (2, 37, 61), (3, 1, 100)):
    images = np.random.RandomState(size[1]).randint(0, 256, (*size, 3)).astype(np.uint8)
    outputs = segment(images=tf.constant(images))
    assert outputs["class_ids"].dtype == tf.uint8 and outputs["probabilities"].dtype == tf.float32
    assert outputs["probabilities"].shape == (*size, len(card["classes"]))
    np.savez(f"{folder}/{size[1]}.npz", images=images, **outputs)
assert not [name for name in sys.modules if name.split(".")[0] in ("core", "experiments")]
"""


@pytest.fixture(scope="module")
def run(road_run):
    return restore.restore(SimpleNamespace(run_dir=str(road_run), checkpoint="best"), article)


def test_it_needs_nothing_of_ours_and_equals_predict(run, road_run, tmp_path):
    exported = tmp_path / "deep" / "exported"
    done = python("experiments.export", f"--run_dir={road_run}", f"--output_dir={exported}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    card = json.loads((exported / "model.json").read_text())
    assert card["classes"] == ["background", "road"] and card["palette"][1] == [128, 64, 128]
    assert card["input"]["validated_side"] == 32 and "multiples of 16" in card["input"]["size"]

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", FOREIGN, str(exported)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120)
    for name in ("32", "37", "1"):
        result = np.load(exported / f"{name}.npz")
        paths = [tmp_path / f"{name}-{index}.png" for index in range(len(result["images"]))]
        for path, pixels in zip(paths, result["images"]):
            Image.fromarray(pixels).save(path)
        out = tmp_path / "out"
        sources, options = photos.find(paths), predict.Options(tile=64)
        predict.run(run.experiment, run.weights, run.dtype, sources, out, options)
        for path, class_ids, shares in zip(paths, result["class_ids"], result["probabilities"]):
            np.testing.assert_array_equal(class_ids, Image.open(out / f"{path.stem}_labels.png"))
            np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
            np.testing.assert_array_equal(class_ids[shares[..., 1] > 0.5001], 1)
            np.testing.assert_array_equal(class_ids[shares[..., 1] < 0.4999], 0)

    with pytest.raises(InputError, match="not empty"):
        export.save(run, exported)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_equals_the_saved_model(run, tmp_path):
    export.save(run, tmp_path / "exported", tflite=True)
    # 1,961,152 weights, the kernels above doubled pixels with 16 taps in place of 9, and no wide one with 18
    assert (tmp_path / "exported/model.tflite").stat().st_size < 9.5e6
    saved = tf.saved_model.load(str(tmp_path / "exported/saved_model"))
    interpreter = tf.lite.Interpreter(str(tmp_path / "exported/model.tflite"))
    lite = interpreter.get_signature_runner("serving_default")
    for size in ((1, 32, 32), (2, 37, 61)):
        images = np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8)
        ours, theirs = saved.signatures["serving_default"](images=images), lite(images=images)
        assert np.abs(ours["probabilities"] - theirs["probabilities"]).max() < 1e-5
        assert (ours["class_ids"].numpy() != theirs["class_ids"]).mean() < 1e-3


def test_probabilities_of_many_logits_and_of_one():
    logits = tf.constant([[[[1.0, 2.0, 3.0]]]])
    np.testing.assert_allclose(decision.probabilities(logits), tf.nn.softmax(logits))
    one = decision.probabilities(tf.fill([1, 1, 1, 1], 3.0))
    np.testing.assert_allclose(one, [[[[0.04742587, 0.95257413]]]], rtol=1e-6)
