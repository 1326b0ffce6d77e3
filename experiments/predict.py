"""Segment photos of any size with a trained run; write class ids, colours and an overlay for each photo.

Run: python -m experiments.predict --run_dir=runs/cityscape_road photo.jpg folder
     python -m experiments.predict --run_dir=runs/dubai_aerial --tta=flip --tile=2048 city.tif
     python -m experiments.predict --run_dir=runs/oxford_pets --probabilities=npy --recursive photos

For each photo NAME, three images are written to the output folder:

NAME_labels.png    the class ids, as 8-bit grey values; small ids look black in a viewer
NAME_colours.png   each pixel in the colour of its class
NAME_overlay.png   half of the photo's colours plus half of NAME_colours.png

For each photo, a line in shares.jsonl holds the share of the photo's pixels in each class. If a TIFF file has
several pages, each page is segmented, and NAME ends with the number of the page: _page_001, _page_002, ...
The results of earlier calls stay in the folder, except files that a new file of the same name replaces. So
earlier files with class probabilities stay if the new call writes another format or none.
"""

from pathlib import Path

from absl import flags

from core.inference import photos, predict, probability_files, restore
from core.runtime import cli
from experiments import article


def define_flags(values):
    """Define the flags that choose the weights, the photos, the method of segmentation, and the results."""
    own = {"flag_values": values}
    restore.define_flags(values)
    flags.DEFINE_string("output_dir", "predicted", "Folder for the results.", **own)
    flags.DEFINE_bool("recursive", False, "Search the subfolders of the given folders too.", **own)
    size = (
        "train: scale a photo to the training size, and the logits back to the photo's size. native: process"
        " the photo at its own size. Networks trained on patches always process photos at their own size."
    )
    flags.DEFINE_enum("size", "train", ["train", "native"], size, **own)
    tile = (
        "Side of a tile in pixels. A photo that is processed at its own size (see --size) is cut into tiles"
        " if it has more pixels than one tile. Memory grows with the square of this number. The tiles overlap"
        " so that their borders leave no trace. Only uncompressed 8-bit RGB TIFF files and binary PPM files"
        " are read tile by tile. Other files are decoded as a whole, up to 2^29 pixels."
    )
    flags.DEFINE_integer("tile", 1024, tile, 1, 10**9, **own)
    flip = "Test-time augmentation. flip: average the logits of the photo and of its mirror image."
    flags.DEFINE_enum("tta", None, ["flip"], flip, **own)
    probabilities = (
        "Also write the class probabilities. npy: one file NAME_probabilities.npy, float16 [height, width,"
        " classes]. png: one 16-bit greyscale file NAME_probability_ID.png for each class id, with 65535 for"
        " probability 1."
    )
    flags.DEFINE_enum("probabilities", "none", ["none", *probability_files.FORMATS], probabilities, **own)
    threshold = (
        "For runs with two classes: a pixel gets class 1 if the probability of class 1 is above this value;"
        " by default 0.5."
    )
    flags.DEFINE_float("threshold", None, threshold, **own)
    between = "must be a number between 0 and 1"
    flags.register_validator("threshold", lambda value: value is None or 0 < value < 1, between, **own)
    white = (
        "Sample value of white in photos with more than 8 bits per sample, such as 4095. 0: the value is"
        " detected in each file. Default: the value that the run was trained with."
    )
    flags.DEFINE_integer("white_level", None, white, 0, 2**31 - 1, **own)


def run(flags, arguments):
    """Segment photos, and return 0, or 1 if some photos could not be read.

    arguments: a list of paths. A path is an image file, or a folder whose images are segmented.
    Raises InputError if `photos.find`, `restore.restore` or `predict.run` does.
    """
    sources = photos.find([Path(argument) for argument in arguments], recursive=flags.recursive)
    trained = restore.restore(flags, article)
    white_level = trained.flags.white_level if flags.white_level is None else flags.white_level
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
