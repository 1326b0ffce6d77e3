"""A trained network as a SavedModel that needs nothing of this project.

saved_model/  signature `serving_default`: images uint8 [N, H, W, 3], RGB, of
              any size -> class_ids uint8 [N, H, W] and probabilities float32
              [N, H, W, classes]
model.json    what its numbers mean: classes, palette, input rule
model.tflite  on demand, the same signature
"""

import shutil

import tensorflow as tf

from core import lowering
from core.inference import decision, tiling
from core.runs import run_folder
from core.runtime import files
from core.runtime.errors import InputError


def save(run, output_dir, *, tflite=False):
    """Write a `restore.Run` to output_dir, computing in its precision.

    With tflite all is float32: that format has no bfloat16 convolution. Raises
    InputError if output_dir holds something or cannot be written.
    """
    if output_dir.exists() and any(output_dir.iterdir()):
        raise InputError(f"{output_dir}: not empty; take another --output_dir.")
    experiment = run.experiment
    multiple = tiling.multiple(experiment.forward, run.weights)
    forward = tiling.padded(experiment.forward, multiple)
    dtype = tf.float32 if tflite else run.dtype

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
    )
    def segment(images):
        logits = tf.cast(forward(run.weights, tf.cast(images, dtype)), tf.float32)
        return {"class_ids": decision.class_ids(logits), "probabilities": decision.probabilities(logits)}

    module = tf.Module()
    module.weights = list(run.weights.values())
    output_dir = output_dir.absolute()
    partial = output_dir.with_name(f".{output_dir.name}.partial")  # whole under its name, or not at all
    with files.writing(output_dir):
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        partial.mkdir(parents=True)
        try:
            with lowering.disabled():
                tf.saved_model.save(module, str(partial / "saved_model"), signatures=segment)
        except tf.errors.OpError as error:  # how TensorFlow says that a disk is full
            raise OSError(error.message) from None
        if tflite:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(partial / "saved_model"))
            (partial / "model.tflite").write_bytes(converter.convert())
        run_folder.write_json(partial / "model.json", _card(run, multiple))
        partial.rename(output_dir)


def _card(run, multiple):
    side = run.experiment.dataset.size
    resample = run.experiment.dataset.resample.name.lower()
    return {
        "experiment": run.experiment.name,
        "checkpoint": str(run.checkpoint),
        "classes": run.experiment.classes,
        "palette": run.experiment.palette,
        "input": {
            "images": "uint8 [N, H, W, 3], RGB from 0 to 255, upright, not normalised",
            "size": f"any; padded inside to multiples of {multiple} by the last row and column",
            "validated_on": f"images scaled to {side} x {side}, {resample}"
            if side
            else "parts of images at their own size",
            "validated_side": side,
        },
        "output": {
            "class_ids": "uint8 [N, H, W]: indices of classes and palette",
            "probabilities": "float32 [N, H, W, classes]",
        },
    }
