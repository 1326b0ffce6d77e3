"""Export a trained network as a SavedModel that runs without this project's code.

saved_model/   signature `serving_default`: images uint8 [N, H, W, 3], RGB, of any size and number
               -> class_ids uint8 [N, H, W] and probabilities float32 [N, H, W, classes]
model.json     the meaning of the outputs: classes, palette, scaling
model.tflite   if requested, the same signature for TensorFlow Lite
"""

import shutil

import tensorflow as tf

from core import lowering
from core.inference import decision, scaling, tiling
from core.runs import run_folder
from core.runtime import files
from core.runtime.errors import InputError

SCALINGS = ("train", "none")


def save(run, output_dir, *, scale="train", tflite=False):
    """Export a `restore.Run` to output_dir; the model computes in the run's precision.

    scale: "train": the model scales images to the training size, and its logits back to the images'
    size, as `predict` does; "none": the network receives images at their own size. Runs that were
    trained on patches have no scaling. tflite: also write model.tflite, and compute in float32,
    because TensorFlow Lite has no bfloat16 convolution. Raises InputError if output_dir is not empty
    or cannot be written.
    """
    if output_dir.exists() and any(output_dir.iterdir()):
        raise InputError(f"{output_dir}: the folder is not empty; use another --output_dir.")
    side = run.experiment.dataset.size if scale == "train" else None
    multiple = tiling.multiple(run.experiment.forward, run.weights)
    module = tf.Module()
    module.weights = list(run.weights.values())
    signature = _signature(run, side, multiple, tf.float32 if tflite else run.dtype)
    output_dir = output_dir.absolute()
    partial = output_dir.with_name(f".{output_dir.name}.partial")  # renamed once it is complete
    with files.writing(output_dir):
        shutil.rmtree(partial, ignore_errors=True)  # of a killed process
        partial.mkdir(parents=True)
        try:
            with lowering.disabled():
                tf.saved_model.save(module, str(partial / "saved_model"), signatures=signature)
        except tf.errors.OpError as error:  # TensorFlow raises it if the disk is full
            raise OSError(error.message) from None
        if tflite:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(partial / "saved_model"))
            (partial / "model.tflite").write_bytes(converter.convert())
        run_folder.write_json(partial / "model.json", _description(run, side, multiple))
        partial.rename(output_dir)


def _signature(run, side, multiple, dtype):
    """Return the exported function. side: the side that images are scaled to, or None."""
    forward = run.experiment.forward if side else tiling.padded(run.experiment.forward, multiple)
    resample = run.experiment.dataset.resample

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
    )
    def segment(images):
        count, height, width, _ = tf.unstack(tf.shape(images))
        black = tf.zeros([tf.maximum(1 - count, 0), height, width, 3])
        batch = tf.concat([tf.cast(images, tf.float32), black], axis=0)  # never empty, else layers fail
        scaled = scaling.resize_images(batch, side, resample) if side else batch
        logits = tf.cast(forward(run.weights, tf.cast(scaled, dtype)), tf.float32)
        if side:
            logits = tf.image.resize(logits, [height, width])
        logits = logits[:count]
        return {"class_ids": decision.class_ids(logits), "probabilities": decision.probabilities(logits)}

    return segment


def _description(run, side, multiple):
    """Return the content of model.json."""
    trained_side, resample = run.experiment.dataset.size, run.experiment.dataset.resample.name.lower()
    size = f"any; padded inside to multiples of {multiple} by the last row and column"
    if side:
        size = f"any; scaled inside to {side} x {side}, {resample}, and the logits back, bilinear"
    return {
        "experiment": run.experiment.name,
        "checkpoint": str(run.checkpoint.absolute()),
        "classes": run.experiment.classes,
        "palette": run.experiment.palette,
        "scaling": "train" if side else "none",
        "input": {
            "images": "uint8 [N, H, W, 3], RGB from 0 to 255, upright, not normalised; N >= 0",
            "size": size,
            "validated_on": f"images scaled to {trained_side} x {trained_side}, {resample}"
            if trained_side
            else "parts of images at their own size",
            "validated_side": trained_side,
        },
        "output": {
            "class_ids": "uint8 [N, H, W]: indices of classes and palette",
            "probabilities": "float32 [N, H, W, classes]",
        },
    }
