"""Export a trained network as a SavedModel that runs without this project's code.

An export is a folder with these files:

saved_model/   a SavedModel. The input of its signature `serving_default` is images, uint8 [N, H, W, 3], RGB.
               N may be 0. H and W may be any numbers above 0. Images are not cut into tiles. Therefore the
               memory grows with N * H * W, even if the model scales images. The outputs are class_ids, uint8
               [N, H, W], and probabilities, float32 [N, H, W, classes].
model.json     a description of input and output: sizes, scaling, class names, palette
model.tflite   a TensorFlow Lite model with the same input and outputs; written only if `save` is called with
               tflite=True
"""

import os
import shutil
import uuid

import tensorflow as tf

from core import lowering
from core.inference import decision, scaling, tiling
from core.runs import run_folder
from core.runtime import files
from core.runtime.errors import InputError

SCALINGS = ("train", "none")


def save(run, output_dir, *, scale="train", tflite=False):
    """Export the network of a trained run to a folder.

    run: a `restore.Run`. output_dir: the folder to create, which must not exist.
    scale: "train" or "none". "train": the model scales images to `Dataset.size`, the size of the validation
    images, and scales the logits back to the size of the input images, as `experiments.predict` does by
    default. "none": the network processes images at their own size. If the run was trained on patches,
    "train" means the same as "none".
    tflite: if False, the SavedModel computes in the dtype of the run. If True, model.tflite is written too,
    and both models compute in float32, because TensorFlow Lite has no bfloat16 convolution.
    Raises ValueError if scale is none of these values. Raises InputError if output_dir exists or cannot be
    written, if TensorFlow Lite does not support an op of the network, or if the model scales images and
    `scaling.resize_images` does not support the filter with which the training photos were resized.
    """
    if scale not in SCALINGS:
        raise ValueError(f"scale must be one of {SCALINGS}, not {scale!r}")
    if os.path.lexists(output_dir):
        raise InputError(f"{output_dir}: exists already; name a folder that does not exist as --output_dir.")
    side = run.experiment.dataset.size if scale == "train" else None
    multiple = tiling.multiple(run.experiment.forward, run.weights)
    module = tf.Module()
    module.weights = list(run.weights.values())
    signature = _signature(run, side, multiple, tf.float32 if tflite else run.dtype)
    output_dir = output_dir.absolute()
    # Renamed to output_dir once complete. The random name keeps two exports apart. An export that is killed
    # leaves this folder.
    partial = output_dir.with_name(f".{output_dir.name}.{uuid.uuid4().hex}.partial")
    try:
        with files.writing(output_dir):
            partial.mkdir(parents=True)
            try:
                with lowering.disabled():  # exports use TensorFlow's own ops, which run on all devices
                    tf.saved_model.save(module, str(partial / "saved_model"), signatures=signature)
            except tf.errors.OpError as error:  # TensorFlow raises OpError if the disk is full
                raise OSError(error.message) from None
            if tflite:
                converter = tf.lite.TFLiteConverter.from_saved_model(str(partial / "saved_model"))
                (partial / "model.tflite").write_bytes(_converted(converter))
            run_folder.write_json(partial / "model.json", _description(run, side, multiple))
            partial.rename(output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _converted(converter):
    """Return the model of a `tf.lite.TFLiteConverter` as bytes. Raises InputError if an op is unsupported."""
    try:
        return converter.convert()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # TensorFlow raises several kinds of exceptions
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--tflite: TensorFlow Lite cannot convert this network ({reason}); leave --tflite out."
        ) from None


def _signature(run, side, multiple, dtype):
    """Return the function to export: images uint8 [N, H, W, 3] -> dict of class_ids and probabilities.

    run: `restore.Run`. side: images are scaled to side x side pixels. If side is None, images are not scaled,
    but padded so that `multiple` divides their height and width. dtype: the dtype of the activations.
    """
    forward = run.experiment.forward if side else tiling.padded(run.experiment.forward, multiple)
    resample = run.experiment.dataset.resample

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
    )
    def segment(images):
        count, height, width, _ = tf.unstack(tf.shape(images))
        black = tf.zeros([tf.maximum(1 - count, 0), height, width, 3])
        # Some layers fail for an empty batch. So a black image is added to an empty batch, and the logits of
        # the black image are dropped.
        batch = tf.concat([tf.cast(images, tf.float32), black], axis=0)
        scaled = scaling.resize_images(batch, side, resample) if side else batch
        logits = tf.cast(forward(run.weights, tf.cast(scaled, dtype)), tf.float32)
        if side:
            logits = tf.image.resize(logits, [height, width])
        logits = logits[:count]
        return {"class_ids": decision.class_ids(logits), "probabilities": decision.probabilities(logits)}

    return segment


def _description(run, side, multiple):
    """Return the content of model.json, a dict. run: `restore.Run`. side, multiple: as for `_signature`."""
    trained_side, resample = run.experiment.dataset.size, run.experiment.dataset.resample.name.lower()
    size = (
        f"any; the model pads images to multiples of {multiple} by repeating the last row and column; the"
        " memory grows with the size"
    )
    if side:
        size = (
            f"any; the model scales images to {side} x {side} ({resample}) and scales the logits back to the"
            " images' size (bilinear)"
        )
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
            else "patches of images that were not scaled",
            "validated_side": trained_side,
        },
        "output": {
            "class_ids": "uint8 [N, H, W]: indices of classes and palette",
            "probabilities": "float32 [N, H, W, classes]",
        },
    }
