"""Experiments whose parts do not fit together are refused; a defined metric chooses the best epoch."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import decoded, refused, road_flags, small_road, write_pair
from small_networks import small

from core import losses, metrics
from core.models import pets_unet, road_unet
from core.training import checks, history, loop
from experiments import cityscape_road

THREE = {"classes": ("background", "road", "sky"), "palette": ((0, 0, 0), (128, 64, 128), (70, 130, 180))}


def mean_loss(logits, masks):
    return tf.reduce_mean(losses.binary_cross_entropy(logits, masks))


def losses_of_pixels(logits, masks):
    return logits**2


def losses_of_classes(logits, masks):
    return tf.zeros([2])


def with_weight(name, constraint=None):
    """Return a replacement of `init_weights` whose dict also has the weight `name`."""
    weight = tf.Variable(1.0, constraint=constraint)
    return lambda *, seed: small(road_unet)["init_weights"](seed=seed) | {name: weight}


def shared_weight(*, seed):
    weights = small(road_unet)["init_weights"](seed=seed)
    return weights | {"logit/again": weights["logit"]}


OUTSIDE = tf.Variable(1.0, name="outside")


def network_with_a_variable_outside(weights, images, **options):
    return small(road_unet)["forward"](weights, images, **options) * OUTSIDE


def smaller_logits(weights, images, *, training=False, seed=None):
    return images[:, ::2, ::2, :1]


@pytest.mark.parametrize(
    "changes, named",
    [
        (THREE, "3 classes, but its network's logits have 1 channels"),
        ({"classes": THREE["classes"]}, "3 classes and 2 colours"),
        ({"palette": THREE["palette"]}, "2 classes and 3 colours"),
        ({"classes": ("road", "road")}, "two classes have the same name"),
        ({"classes": ("road",), "palette": ((0, 0, 0),)}, "has 1 classes"),
        ({"best": "mean_iou"}, "best='mean_iou'"),
        ({"metrics": metrics.multiclass(THREE["classes"])}, "3 names for 2 classes"),
        (
            THREE | small(pets_unet, classes=3) | {"loss": losses.categorical_cross_entropy},
            "metrics.binary is for two classes",
        ),
        ({"loss": mean_loss}, "the loss has the shape () for 3 examples"),
        ({"loss": losses_of_classes}, "the loss has the shape (2,) for 3 examples"),
        ({"measures": {"sharpness": losses_of_pixels}}, "sharpness has the shape (3, 32, 32, 1)"),
        ({"metrics": lambda confusion: {"iou": metrics.iou(confusion)}}, "'iou' has the shape (2,)"),
        ({"init_weights": with_weight("average/scale")}, "rename the weight 'average/scale'"),
        ({"init_weights": with_weight("scale", tf.nn.relu)}, "the constraint of 'scale' has no effect"),
        ({"init_weights": shared_weight}, "two names of weights mean the same variable"),
        ({"forward": network_with_a_variable_outside}, "the trainable variable 'outside:0', which is not"),
        ({"forward": smaller_logits}, "returns logits of the shape (1, 256, 256, 1)"),
        ({"measures": {"accuracy": losses.binary_cross_entropy}}, "two metrics are called 'accuracy'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_of_an_experiment_that_do_not_fit_are_refused(changes, named):
    experiment = small_road(**changes)
    with refused(named):
        checks.check_experiment(experiment, experiment.init_weights(seed=0))


def test_photos_that_do_not_have_the_size_of_the_dataset_are_refused(pairs, tmp_path, capsys):
    experiment = small_road()
    other = dataclasses.replace(experiment, dataset=dataclasses.replace(experiment.dataset, size=64))
    flags = road_flags(tmp_path / "run", f"--data_dir={pairs}", f"--cache_dir={tmp_path / 'cache'}")
    with refused("the size of its Dataset is 64, but its validation photos have 32x32 pixels"):
        loop.run(other, cityscape_road.define_flags, flags)


def test_a_third_class_is_refused_before_decoding(start, capsys):
    with refused("3 classes, but its network's logits have 1 channels"):
        start("run", **THREE)
    assert "decoding" not in capsys.readouterr().out


def test_a_loss_below_zero_ends_the_training(start):
    def falling(logits, masks):
        return losses.binary_cross_entropy(logits, masks) - 5.0

    with refused("a loss must not be negative"):
        start("run", loss=falling)


def test_without_road_in_the_validation_masks_the_loss_chooses_the_best_epoch(pairs, start, capsys):
    for path in (pairs / "val").iterdir():
        write_pair(path, road=(0, 0, 0))
    start("run", "--epochs=1")
    told = capsys.readouterr().out
    assert "without a pixel in the validation masks: road." in told
    assert "iou is undefined for these validation masks; instead, the smallest validation loss" in told
    assert "3 of the 3 validation images are identical to training images" in told


def test_validation_photos_identical_to_training_photos_are_counted(tmp_path, capsys):
    photos = np.random.RandomState(0).randint(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    masks = np.zeros([4, 8, 8], np.uint8)
    for rows, told in (
        ([1, 2], "1 of the 2 validation images are identical to training images"),
        ([2, 3], ""),
    ):
        train, val = (decoded(tmp_path, photos, masks, each) for each in ([0, 1], rows))
        checks.warn_of_shared_photos(train, val)
        printed = capsys.readouterr().out
        assert told in printed and bool(told) == bool(printed)


def test_the_best_epoch_is_the_first_with_the_best_defined_value():
    rows = [
        {"val_iou": iou, "val_loss": loss} for iou, loss in ((np.nan, 3), (-0.5, 2), (-0.5, np.nan), (0, 2.5))
    ]
    assert history.best(rows[:1], "iou") is rows[0]
    assert history.best([rows[0], dict(rows[0])], "iou") is not rows[0]  # all are NaN: the last row
    assert history.best(rows[:3], "iou") is rows[1] and history.best(rows, "iou") is rows[3]
    assert history.best(rows, "loss") is rows[1] and history.best(rows[::-1], "loss") is rows[1]


def test_the_best_metric_must_be_defined_for_the_validation_masks(tmp_path):
    images, masks = np.zeros([2, 4, 4, 3], np.uint8), np.zeros([2, 4, 4], np.uint8)
    masks[0] = 1
    examples = decoded(tmp_path, images, masks)
    for rows, expected in (([0], "iou"), ([1], "loss"), ([0, 1], "iou")):
        split = dataclasses.replace(
            examples, rows=np.array(rows), class_pixels=np.bincount(masks.ravel(), minlength=256)
        )
        assert checks.best_metric(small_road(), split) == expected
        assert split.split_pixels.sum() == 16 * len(rows)
