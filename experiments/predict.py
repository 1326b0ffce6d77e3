"""Segment photos of any size with a trained run: class ids, colours and an overlay for each.

Run: python -m experiments.predict --run_dir=runs/cityscape_road photo.jpg folder
     python -m experiments.predict --run_dir=runs/dubai_aerial --tta=flip --tile=2048 city.tif
     python -m experiments.predict --run_dir=runs/oxford_pets --probabilities=npy --recursive photos

For each photo NAME, the output folder gets NAME_labels.png (class ids, which look black in a viewer),
NAME_colours.png and NAME_overlay.png, and a line in shares.jsonl with the share of each class. A TIFF
file with several pages gives NAME_page_001 and so on. Results of earlier calls are kept.
"""

from pathlib import Path

from absl import flags

from core.inference import photos, predict, probability_files, restore
from core.runtime import cli
from experiments import article


def define_flags(values):
    """Define the flags that choose the trained weights, the images, the results and the computation."""
    own = {"flag_values": values}
    restore.define_flags(values)
    flags.DEFINE_string("output_dir", "predicted", "Folder for the results.", **own)
    flags.DEFINE_bool("recursive", False, "Search the subfolders of the given folders too.", **own)
    size = (
        "train: scale a photo to the training size, and the logits back to the photo's size; native:"
        " process it at its own size. Runs trained on patches always use the photo's own size."
    )
    flags.DEFINE_enum("size", "train", ["train", "native"], size, **own)
    tile = (
        "Tile side in pixels for larger photos that are processed at their own size; memory grows with its"
        " square."
    )
    flags.DEFINE_integer("tile", 1024, tile, 1, **own)
    flip = "flip: average the logits of the photo and of its mirror image."
    flags.DEFINE_enum("tta", None, ["flip"], flip, **own)
    probabilities = (
        "npy: write NAME_probabilities.npy too, float16 [height, width, classes]; png: write"
        " NAME_probability_0.png and so on, one for each class id, 16-bit greyscale, 65535 for probability"
        " 1."
    )
    flags.DEFINE_enum("probabilities", "none", ["none", *probability_files.FORMATS], probabilities, **own)
    threshold = (
        "For two classes: a pixel is of class 1 if the probability of class 1 is above this value; default"
        " 0.5."
    )
    flags.DEFINE_float("threshold", None, threshold, **own)
    between = "must be a number between 0 and 1"
    flags.register_validator("threshold", lambda value: value is None or 0 < value < 1, between, **own)
    white = (
        "Sample value of white in photos with more than 8 bits per sample, such as 4095; 0: detected. By"
        " default as in the training."
    )
    flags.DEFINE_integer("white_level", None, white, 0, 2**31 - 1, **own)


def run(flags, arguments):
    """Segment the image files and folders that arguments name; return the exit code."""
    sources = photos.find([Path(argument) for argument in arguments], recursive=flags.recursive)
    trained = restore.restore(flags, article)
    white_level = trained.experiment.dataset.white_level if flags.white_level is None else flags.white_level
    options = predict.Options(
        resize=trained.experiment.dataset.size if flags.size == "train" else None,
        tile=flags.tile,
        flip=flags.tta == "flip",
        threshold=flags.threshold,
        probabilities=None if flags.probabilities == "none" else flags.probabilities,
        white_level=white_level,
    )
    return predict.run(
        trained.experiment, trained.weights, trained.dtype, sources, Path(flags.output_dir), options
    )


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
