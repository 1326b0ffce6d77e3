"""Predict the class ids of images that are NumPy arrays, for notebooks and other programs."""

import numpy as np
from PIL import Image

from core.inference import decision, scaling, tiling
from core.inference.predict import Options, make_network
from core.runs import code_digest
from core.runtime.errors import InputError


def predict(run, images):
    """Return the predicted class ids of photos: uint8 [N, H, W].

    run: a `core.inference.restore.Run`, which `experiments.load` returns. images: the photos, uint8
    [N, H, W, 3], RGB. H and W may be any size. Photos are not cut into tiles, so the memory of a network that
    processes photos at their own size grows with H * W.
    If the run's data set resizes photos, each photo is resized for the network as the validation photos were,
    and its logits are scaled back to H x W. Otherwise, the network processes each photo at its own size.
    For files with the same pixels, `experiments.predict` with its default flags writes the same class ids,
    except where rounding decides between two classes. Each call prints a warning if the code has
    changed since the training. Raises InputError if `images` has another shape or dtype than uint8
    [N, H, W, 3], or if a source file of the experiment is not valid Python.
    """
    try:
        images = np.asarray(images)
    except ValueError:  # a list of photos of different sizes
        raise InputError("images: the photos differ in size; predict photos of one size at a time.") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"images: must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}.")
    if not images.size:
        return np.zeros(images.shape[:3], np.uint8)
    code_digest.warn_if_changed(run.folder, run.experiment)  # ops may have been replaced since the restoring
    experiment, side = run.experiment, run.experiment.dataset.size
    multiple = tiling.multiple(experiment.forward, run.weights)
    network = make_network(experiment, run.weights, run.dtype, multiple, Options(resize=side))
    if not side:
        return np.concatenate([network(image[None])[0].numpy() for image in images])
    _, height, width, _ = images.shape
    results = []
    for image in images:
        resized = Image.fromarray(image).resize((side, side), experiment.dataset.resample)
        logits = network(np.asarray(resized)[None])[0][0].numpy()
        strips = scaling.logit_strips(logits, height, width)
        results.append(np.concatenate([decision.class_ids(strip) for strip in strips]))
    return np.stack(results)
