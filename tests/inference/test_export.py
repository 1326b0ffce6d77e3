"""An exported network loads without this project and gives the results of predict."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_networks import small_articles

import experiments
from core.inference import decision, export, photos, predict
from core.models import road_unet
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import export as verb

FOREIGN = """
import json, sys
import numpy as np, tensorflow as tf
folder = sys.argv[1]
segment = tf.saved_model.load(folder + "/saved_model").signatures["serving_default"]
card = json.load(open(folder + "/model.json"))
for size in ((1, 32, 32), (2, 37, 61), (3, 1, 100), (0, 40, 40)):
    images = np.random.RandomState(size[1]).randint(0, 256, (*size, 3)).astype(np.uint8)
    outputs = segment(images=tf.constant(images))
    assert outputs["class_ids"].dtype == tf.uint8 and outputs["probabilities"].dtype == tf.float32
    assert outputs["probabilities"].shape == (*size, len(card["classes"]))
    np.savez(f"{folder}/{size[1]}.npz", images=images, **outputs)
assert not [name for name in sys.modules if name.split(".")[0] in ("core", "experiments")]
"""


@pytest.fixture(scope="module")
def run(road_run):
    with small_articles():
        return experiments.load(road_run)


def test_an_export_loads_without_this_project_and_equals_predict(
    run, road_run, small_articles, tmp_path, capfd
):
    exported = tmp_path / "deep" / "exported"
    arguments = [f"--run_dir={road_run}", f"--output_dir={exported}"]
    assert verb.run(cli.parse(verb.define_flags, arguments)) == 0
    assert capfd.readouterr().err == ""
    card = json.loads((exported / "model.json").read_text())
    assert card["classes"] == ["background", "road"] and card["palette"][1] == [128, 64, 128]
    assert card["scaling"] == "train" and card["input"]["validated_side"] == 32
    assert "scales images to 32 x 32 (bilinear)" in card["input"]["size"]

    command = [sys.executable, "-c", FOREIGN, str(exported)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    results = [np.load(exported / f"{name}.npz") for name in ("32", "37", "1")]
    images, class_ids, shares = ([each for result in results for each in result[key]] for key in ARRAYS)
    for found, probabilities, (labels, predicted) in zip(
        class_ids, shares, predicted_for(run, images, tmp_path, resize=32), strict=True
    ):
        # the scaled photo may differ by a rounding error of one level
        np.testing.assert_allclose(probabilities, predicted, rtol=0, atol=0.01)
        decided = np.abs(probabilities[..., 1] - 0.5) > 0.01
        np.testing.assert_array_equal(found[decided], labels[decided])
    assert np.load(exported / "40.npz")["class_ids"].shape == (0, 40, 40)

    with pytest.raises(InputError, match="exported: exists already"):
        export.save(run, exported)
    with pytest.raises(ValueError, match="scale must be one of"):
        export.save(run, tmp_path / "other", scale="Train")


def test_an_export_without_scaling_equals_predict_at_the_own_size(run, small_articles, tmp_path):
    kernel = np.random.RandomState(3).normal(size=run.weights["logit"].shape)  # predicts both classes
    weights = {**run.weights, "logit": tf.Variable(kernel, dtype=tf.float32)}
    run = dataclasses.replace(run, weights=weights)
    export.save(run, tmp_path / "exported", scale="none")
    card = json.loads((tmp_path / "exported/model.json").read_text())
    assert card["scaling"] == "none" and "multiples of 2" in card["input"]["size"]
    # without the variable `loaded`, the signature's variables would be deleted
    loaded = tf.saved_model.load(str(tmp_path / "exported/saved_model"))
    segment = loaded.signatures["serving_default"]
    inputs, class_ids, shares = [], [], []
    for size in ((1, 32, 32), (2, 37, 61), (3, 1, 100)):
        images = np.random.RandomState(size[1]).randint(0, 256, (*size, 3)).astype(np.uint8)
        outputs = segment(images=tf.constant(images))
        inputs += [*images]
        class_ids += [*outputs["class_ids"].numpy()]
        shares += [*outputs["probabilities"].numpy()]
    for found, probabilities, (labels, predicted) in zip(
        class_ids, shares, predicted_for(run, inputs, tmp_path, tile=64), strict=True
    ):
        assert 0.01 < found.mean() < 0.99
        np.testing.assert_array_equal(found, labels)
        np.testing.assert_allclose(probabilities, predicted, rtol=0, atol=1e-3)
    empty = segment(images=tf.zeros([0, 37, 61, 3], tf.uint8))
    assert empty["class_ids"].shape == (0, 37, 61) and empty["probabilities"].shape == (0, 37, 61, 2)


ARRAYS = ("images", "class_ids", "probabilities")


def predicted_for(run, images, folder, **options):
    """Return a list with (class ids, probabilities) that `predict` writes for each of the given images."""
    paths = [folder / f"{index}.png" for index in range(len(images))]
    for path, pixels in zip(paths, images):
        Image.fromarray(pixels).save(path)
    options = predict.Options(probabilities="npy", **options)
    predict.run(run.experiment, run.weights, run.dtype, photos.find(paths), folder / "out", options)
    return [
        (
            np.asarray(Image.open(folder / f"out/{path.stem}_labels.png")),
            np.load(folder / f"out/{path.stem}_probabilities.npy"),
        )
        for path in paths
    ]


def test_an_export_does_not_mix_its_files_with_those_of_another_export(
    run, small_articles, tmp_path, monkeypatch
):
    def another_export_ends_first(module, folder, **options):
        (tmp_path / "exported").mkdir()
        (tmp_path / "exported/model.json").write_text("another export")

    monkeypatch.setattr(tf.saved_model, "save", another_export_ends_first)
    with pytest.raises(InputError, match="exported: cannot be written .*; name another place"):
        export.save(run, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (tmp_path / "exported/model.json").read_text() == "another export"


def test_an_op_that_tensorflow_lite_lacks_is_reported(run, small_articles, tmp_path, monkeypatch):
    def convert():
        raise RuntimeError("'tf.ResizeBicubic' op is not supported\nmore lines")

    converter = SimpleNamespace(convert=convert)
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda path: converter)
    with pytest.raises(InputError, match=r"--tflite: .* network \('tf.ResizeBicubic' op is not supported\);"):
        export.save(run, tmp_path / "exported", tflite=True)
    assert not [path for path in tmp_path.iterdir() if "exported" in path.name]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_the_tflite_model_equals_the_saved_model(run, tmp_path):
    # the article's filters; the exported models compute in float32, although the run is in bfloat16
    run = dataclasses.replace(run, weights=road_unet.init_weights(seed=0), dtype=tf.bfloat16)
    export.save(run, tmp_path / "exported", tflite=True)
    size = (tmp_path / "exported/model.tflite").stat().st_size
    # all parameters in float32, but no kernels that the lowering has transformed
    assert 4 * 1_961_152 < size < 8.1e6
    saved = tf.saved_model.load(str(tmp_path / "exported/saved_model"))
    interpreter = tf.lite.Interpreter(str(tmp_path / "exported/model.tflite"))
    lite = interpreter.get_signature_runner("serving_default")
    for shape in ((1, 32, 32), (2, 37, 61), (0, 37, 61)):
        images = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
        ours, theirs = saved.signatures["serving_default"](images=images), lite(images=images)
        np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], rtol=0, atol=3e-5)
        assert (ours["class_ids"].numpy() != theirs["class_ids"]).sum() < 5


def test_probabilities_of_several_logits_and_of_one():
    logits = tf.constant([[[[1.0, 2.0, 3.0]]]])
    expected = [[[[0.0900306, 0.2447285, 0.6652410]]]]
    np.testing.assert_allclose(decision.probabilities(logits), expected, rtol=1e-5)
    one = decision.probabilities(tf.fill([1, 1, 1, 1], 3.0))
    np.testing.assert_allclose(one, [[[[0.04742587, 0.95257413]]]], rtol=1e-6)
