"""What makes a training better than its article's: against Keras and NumPy."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import small_training
import tensorflow as tf
from test_kill import FORKS, generated

import experiments
from core import losses
from core.data import augment
from core.inference import report, restore
from core.models import road_unet
from core.runs import checkpoint
from core.runtime import cli
from core.training import averaging, loop, scaling, schedule
from core.training.step import Recipe, init_slots, make_train_step
from experiments import article, cityscape_road

BEST = sorted(Path(experiments.__file__).parent.glob("best/*.cfg"))


def test_the_schedule_is_that_of_keras():
    keras = tf.keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=90, warmup_target=0.01, warmup_steps=10
    )
    rate = functools.partial(schedule.learning_rate, peak=0.01, shape="cosine", warmup_steps=10, steps=100)
    for step in (10, 11, 37, 55, 99):
        assert float(rate(tf.constant(step, tf.int64))) == pytest.approx(float(keras(step)), rel=1e-4)
    rates = [float(rate(tf.constant(step, tf.int64))) for step in range(12)]
    np.testing.assert_allclose(rates[:11], 0.01 * np.arange(1, 12) / 11, rtol=1e-6)
    constant = [
        float(schedule.learning_rate(step, peak=0.5, shape="constant", warmup_steps=1, steps=9))
        for step in range(4)
    ]
    assert constant == [0.25, 0.5, 0.5, 0.5]


def test_averages_by_hand():
    weights = {"kernel": tf.Variable([1.0, 2.0])}
    averages = averaging.init_averages(weights)
    expected = np.array([1.0, 2.0])
    for step in range(1, 40):
        weights["kernel"].assign([step, -step])
        averaging.update(averages, weights, tf.constant(step, tf.int64), decay=0.5)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * np.array([step, -step])
    np.testing.assert_allclose(averages["average/kernel"], expected, rtol=1e-5)
    variables = {**weights, "adam/step": 3, **averages}
    assert averaging.evaluated(variables) == {"kernel": averages["average/kernel"]}
    assert averaging.evaluated({**weights, "adam/step": 3}) == weights


@pytest.mark.parametrize("classes", [1, 3])
def test_the_dice_loss_by_hand(classes):
    rng = np.random.RandomState(0)
    logits = rng.randn(2, 4, 5, classes).astype(np.float32)
    masks = rng.randint(0, max(classes, 2), (2, 4, 5)).astype(np.uint8)
    expected = []
    for logit, mask in zip(logits.astype(float), masks):
        if classes == 1:
            share, truth = 1 / (1 + np.exp(-logit[..., 0])), mask == 1
            hit, both = share[truth].sum(), share.sum() + truth.sum()
        else:
            share = np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)
            hit, both = np.take_along_axis(share, mask[..., None], -1).sum(), 2 * mask.size
        expected.append(1 - (2 * hit + 1) / (both + 1))
    np.testing.assert_allclose(losses.dice(logits, masks), expected, rtol=1e-5)


def test_an_example_can_be_laid_in_eight_ways():
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3)
    image = np.repeat(mask[..., None], 3, axis=-1)
    ways = {np.rot90(turned, count).tobytes() for turned in (mask, mask.T) for count in range(4)}
    lay = tf.function(augment.dihedral)  # as tf.data calls it
    found = set()
    for number in range(100):
        laid, cut = lay(image, mask, tf.constant([number, 1], tf.int64))
        np.testing.assert_array_equal(laid[..., 0], cut)
        found.add(cut.numpy().tobytes())
    assert found == ways


def test_a_zoom_takes_photo_and_mask_from_one_window():
    """On slopes: at the middle of the window, both have the window's mean."""
    rows, columns = np.mgrid[:64, :48].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=-1)
    sides, corners = set(), set()
    for number in range(60):
        zoomed, mask = augment.zoom(image, rows, tf.constant([number, 1], tf.int64))
        assert zoomed.shape == (64, 48, 3) and mask.shape == (64, 48) and zoomed.dtype == tf.uint8
        assert np.abs(zoomed[..., 0].numpy().astype(int) - mask.numpy()).max() <= 1
        down, across = np.ptp(zoomed[..., 0]) + 1, np.ptp(zoomed[..., 1]) + 1
        assert 43 <= down <= 64 and abs(down / 64 - across / 48) < 0.05
        sides.add(int(down))
        corners.add((int(zoomed[0, 0, 0]), int(zoomed[0, 0, 1])))
    assert len(sides) > 12 and len(corners) > 20


def test_colours_change_and_masks_do_not():
    rng = np.random.RandomState(0)
    image, mask = rng.randint(60, 120, (8, 8, 3)).astype(np.uint8), rng.randint(0, 3, (8, 8))
    means = []
    for number in range(50):
        changed, same = augment.colour(image, mask, tf.constant([number, 1], tf.int64))
        assert changed.dtype == tf.uint8 and same is mask
        means.append(changed.numpy().mean() / image.mean())
        assert np.corrcoef(changed.numpy().ravel(), image.ravel())[0, 1] > 0.8
    assert 0.69 < min(means) < 0.8 and 1.2 < max(means) < 1.31


def test_averages_are_what_validation_and_every_verb_use(pairs, tmp_path):
    flags = cli.parse(
        cityscape_road.define_flags,
        [
            f"--data_dir={pairs}",
            f"--run_dir={tmp_path / 'run'}",
            f"--cache_dir={tmp_path / 'cache'}",
            *"--size=32 --batch_size=2 --epochs=2 --ema_decay=0.9".split(),
        ],
    )
    loop.run(cityscape_road.experiment(flags), cityscape_road.define_flags, flags)
    arrays, state = checkpoint.load(tmp_path / "run/checkpoints/last.npz")
    verb = cli.parse(restore.define_flags, [f"--run_dir={tmp_path / 'run'}", "--checkpoint=last"])
    run = restore.restore(verb, article, data=True)
    for name, weight in run.weights.items():
        np.testing.assert_array_equal(weight, arrays[f"average/{name}"])
        assert np.abs(arrays[f"average/{name}"] - arrays[name]).max() > 1e-5
    figures = report.evaluate(run, "val", tmp_path / "out")
    assert figures["loss"] == state["history"][-1]["val_loss"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["final"]["val_loss"] == figures["loss"]


@pytest.mark.parametrize("path", BEST, ids=[path.stem for path in BEST])
def test_the_better_settings_of_an_experiment_train(path, shared_cache, tmp_path):
    data, flagfile = generated(path.stem, shared_cache), f"--flagfile={path}"
    ours = [flagfile, "--epochs=1", f"--run_dir={tmp_path / 'run'}"]
    training = path.stem, tmp_path / "run", shared_cache, data, None, ours
    child = FORKS.Process(target=small_training.run, args=training)
    child.start()
    child.join()
    assert (tmp_path / "run/summary.json").exists()
    define_flags = article(path.stem).define_flags
    article_flags, better = cli.parse(define_flags), cli.parse(define_flags, [flagfile])
    changed = {name for name in better if better[name].value != article_flags[name].value}
    assert changed and not changed & {"epochs", "size", "patch_size", "data_dir", "seed", "split_by"}


def test_float16_leaves_out_the_step_that_overflows_and_finds_its_factor():
    variables = {"kernel": tf.Variable([1.0, 2.0])}
    slots = scaling.init_slots(tf.float16)
    assert not scaling.init_slots(tf.bfloat16)
    loss = float(scaling.scaled(tf.constant(2.0), slots))
    assert loss == 2 * 2.0**15 and scaling.scaled(3.0, {}) == 3.0

    def descend(gradients):
        variables["kernel"].assign_sub(gradients["kernel"])

    @tf.function
    def step(gradient):
        scaling.apply(descend, {"kernel": gradient * slots["scaling/factor"]}, slots)

    def state():
        return float(slots["scaling/factor"]), int(slots["scaling/steps"])

    step([0.5, 0.25])
    assert state() == (2**15, 1)
    np.testing.assert_array_equal(variables["kernel"], [0.5, 1.75])
    for bad in (np.inf, np.nan):
        step([bad, 0.0])
    assert state() == (2**13, 0)
    np.testing.assert_array_equal(variables["kernel"], [0.5, 1.75])
    slots["scaling/steps"].assign(1998)
    step([0.0, 0.0])
    assert state() == (2**13, 1999)
    step([0.0, 0.0])
    assert state() == (2**14, 0)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_follows_float32(dtype):
    """Twenty steps on one batch: the same fall of the loss, within what 8 bits of mantissa do to it."""
    expected, _ = _trained(tf.float32, Recipe(0.01), steps=20)
    found, _ = _trained(dtype, Recipe(0.01), steps=20)
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_a_step_compiled_with_xla_is_the_same(tmp_path):
    """In a process of its own: the suite's ops are deterministic, which XLA's max-pooling is not."""
    child = FORKS.Process(target=_compare_with_xla)
    child.start()
    child.join()
    assert child.exitcode == 0


def _compare_with_xla():
    expected, weights = _trained(tf.float32, Recipe(1e-3), steps=5)
    found, compiled = _trained(tf.float32, Recipe(1e-3, xla=True), steps=5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name in weights:
        np.testing.assert_allclose(compiled[name], weights[name], rtol=0.01, atol=1e-4)


def _trained(dtype, recipe, *, steps):
    """Losses and weights of a small road network after so many steps on one batch."""
    experiment = cityscape_road.experiment(cli.parse(cityscape_road.define_flags))
    images = np.random.RandomState(0).randint(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    weights = road_unet.init_weights(seed=0, filters=(4, 8))
    slots = init_slots(weights, dtype)
    step = make_train_step(experiment, weights, slots, {}, dtype, recipe)
    losses = [float(step(images, images[..., 0] // 128, 1.0, [0, number])) for number in range(steps)]
    assert int(slots["adam/step"]) == steps
    return losses, weights
