"""Train a U-Net that segments the road in street photos (Cityscapes image pairs).

Article:  "Cityscape Image Segmentation With TensorFlow 2.0", Shubham Panchal, 2019,
          https://towardsdatascience.com/cityscape-segmentation-with-tensorflow-2-0-b320b6605cbf,
          https://github.com/shubham0204/Google_Colab_Notebooks (CityScape_Image_Segmentation.ipynb)
Claim:    the article reports no metric.
Network:  core/models/road_unet.py. Input 128x128, nearest-neighbour up-sampling, one logit per pixel.
Settings: Adam with learning rate 1e-3, batches of 5, 25 epochs. The article does not clip gradients
          (--clip_norm=0). Here --clip_norm=1 is the default, because without clipping the training on
          all 2975 images may diverge.
          The flag --best reads other settings from experiments/best/cityscape_road.cfg.
Data:     Kaggle "cityscapes-image-pairs": 2975 training images train/*.jpg and 500 validation images
          val/*.jpg. The left half of an image is the photo. The right half is the mask, in which each
          class has a colour. Without --data_dir, 400 training and 100 validation images are generated.
Time:     about half an hour on two CPU cores; a few minutes on generated images.

Run: python -m experiments.cityscape_road
     python -m experiments.cityscape_road --data_dir=DIR --run_dir=runs/cityscapes
     python -m experiments.cityscape_road --best --data_dir=DIR
"""

from absl import flags

from core import losses, metrics
from core.data import cityscapes_pairs
from core.experiment import Experiment
from core.models import road_unet
from core.runtime import cli
from core.training import common_flags, loop


def define_flags(values):
    """Define the flags that all experiments share, and this experiment's own flags.

    The defaults of the flags are the article's settings, with two exceptions. Gradients are clipped
    (--clip_norm). A mask pixel is road if its colour is near (128, 64, 128), because the colour in the
    article's text, (128, 63, 126), does not occur in the masks, and the colour in its notebook,
    (128, 63, 127), misses a third of the road (--road_rgb, --road_tolerance).
    """
    common_flags.define(
        values,
        name="cityscape_road",
        epochs=25,
        batch_size=5,
        size=128,
        multiple=2**road_unet.DEPTH,
        learning_rate=1e-3,
        clip_norm=1.0,
    )
    new = common_flags.Definer(values)
    colour = "Colour of the road in the masks: red,green,blue, each 0 to 255."
    flags.DEFINE_list("road_rgb", "128,64,128", colour, **new.own)
    new.must(
        "road_rgb",
        lambda rgb: len(rgb) == 3 and all(len(c) < 9 and c.strip().isdecimal() and int(c) < 256 for c in rgb),
        "must be three numbers from 0 to 255, as in 128,64,128",
    )
    tolerance = "A mask pixel is road if each of its channels differs from --road_rgb by at most this much."
    new.integer("road_tolerance", 30, tolerance, 0, 255)
    clean = (
        "Remove JPEG noise from the masks, for training and validation: apply a 3x3 median filter at full"
        " size, then give each resized pixel the majority class of its area. If off, masks are resized by"
        " nearest neighbour."
    )
    new.switch("clean_labels", False, clean)


def experiment(flags):
    """Return the `Experiment` that the parsed flags define."""
    return Experiment(
        name="cityscape_road",
        classes=("background", "road"),
        palette=((0, 0, 0), (128, 64, 128)),
        dataset=cityscapes_pairs.road_dataset(
            size=flags.size,
            road_rgb=[int(channel) for channel in flags.road_rgb],
            road_tolerance=flags.road_tolerance,
            clean_labels=flags.clean_labels,
            white_level=flags.white_level,
        ),
        init_weights=road_unet.init_weights,
        forward=road_unet.forward,
        loss=losses.binary_cross_entropy,
        metrics=metrics.binary,
        best="iou",
    )


if __name__ == "__main__":
    cli.main(define_flags, lambda flags: loop.run(experiment(flags), define_flags, flags))
