"""The aerial article: its patches, colours, splits, network, soft figures and generated data."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from core import losses, ops, weights
from core.data import dubai_aerial
from core.data.synthetic import aerial_scenes
from core.models import dubai_unet
from core.runtime import cli
from core.runtime.errors import InputError
from core.training import loop
from experiments import dubai_aerial as article
from experiments.benchmark import keras_baselines

BUILDING, LAND, ROAD, VEGETATION, WATER, UNLABELED = dubai_aerial.PALETTE
SMALL = (4, 6, 8)


def write_tile(folder, *, count=1, size=(4, 6), colour=ROAD):
    """A tile of noisy photos, height and width in size, with masks of one colour."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        photo = np.random.RandomState(index).randint(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"part_{index + 1}.jpg")
        write_mask(folder / "masks" / f"part_{index + 1}.png", np.full((*size, 3), colour, np.uint8))


def write_mask(path, colours):
    Image.fromarray(np.asarray(colours, np.uint8)).save(path)


def dataset(*, patch_size=2, split_by="patch", split_seed=42):
    return dubai_aerial.dataset(patch_size=patch_size, split_by=split_by, split_seed=split_seed)


# --- files


def test_tiles_and_photos_come_in_the_order_of_their_numbers(tmp_path):
    for tile in (10, 2, 1):
        write_tile(tmp_path / "set" / f"Tile {tile}", count=11)
    found = dubai_aerial.find(tmp_path / "set", "train")
    names = [photo.relative_to(tmp_path / "set").as_posix() for photo, _ in found]
    assert names == [f"Tile {t}/images/part_{i}.jpg" for t in (1, 2, 10) for i in range(1, 12)]
    for photo, mask in found:
        assert photo.stem == mask.stem and photo.parents[1] == mask.parents[1]
    assert found == dubai_aerial.find(tmp_path / "set", "val") == dubai_aerial.find(tmp_path, "train")


def test_a_folder_without_tiles_and_a_photo_without_mask_are_named(tmp_path):
    with pytest.raises(InputError, match="no folders 'Tile 1'.*--data_dir"):
        dubai_aerial.find(tmp_path, "train")
    write_tile(tmp_path / "Tile 1", count=2)
    (tmp_path / "Tile 1/masks/part_2.png").unlink()
    with pytest.raises(InputError, match=r"part_2\.jpg: no mask .*masks/part_2\.png"):
        dubai_aerial.find(tmp_path, "train")


# --- pixels


def test_patches_are_cut_row_by_row_from_the_top_left(tmp_path):
    write_tile(tmp_path / "Tile 1", size=(5, 7))
    files = dubai_aerial.find(tmp_path, "train")[0]
    colours = np.zeros((5, 7, 3), np.uint8)
    for index, colour in enumerate(dubai_aerial.PALETTE):
        top, left = 2 * (index // 3), 2 * (index % 3)
        colours[top : top + 2, left : left + 2] = colour
    write_mask(files[1], colours)
    photos, masks = dataset().read(files, "train")
    assert photos.shape == (6, 2, 2, 3) and photos.dtype == masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, np.arange(6)[:, None, None] * np.ones((1, 2, 2)))
    photo = np.asarray(Image.open(files[0]))
    np.testing.assert_array_equal(photos[0], photo[:2, :2])
    np.testing.assert_array_equal(photos[4], photo[2:4, 2:4])


def test_masks_with_a_palette_read_like_those_without(tmp_path):
    write_tile(tmp_path / "Tile 2")
    files = dubai_aerial.find(tmp_path, "train")[0]
    indices = np.random.RandomState(0).randint(0, 3, (4, 6)).astype(np.uint8)
    mask = Image.fromarray(indices).convert("P")
    mask.putpalette([*WATER, *BUILDING, *LAND])  # another order than the classes'
    mask.save(files[1])
    assert Image.open(files[1]).mode == "P"
    _, masks = dataset(patch_size=4).read(files, "train")
    np.testing.assert_array_equal(masks[0], np.array([4, 0, 1])[indices[:, :4]])


def test_black_and_other_colours_are_unlabeled_and_reported_with_counts(tmp_path, capsys):
    write_tile(tmp_path / "Tile 1", count=2)
    files = dubai_aerial.find(tmp_path, "train")
    colours = np.full((4, 6, 3), ROAD, np.uint8)
    colours[0, :3] = 0
    colours[1, 0] = np.array(ROAD) + (1, 0, 0)  # almost a road
    colours[2, 0] = UNLABELED
    colours[3, 5] = 7
    write_mask(files[1][1], colours)
    made = dataset(patch_size=4)  # the last two columns are cut off, and with them the sevens
    pixels = sum(np.bincount(made.read(pair, "train")[1].ravel(), minlength=256) for pair in files)
    assert pixels[2] == 27 and pixels[5] == 5 and pixels.sum() == 32
    made.check(pixels, files)
    assert capsys.readouterr().out == (
        "4 of 32 mask pixels (12.50%) have no class's colour and count as unlabeled:"
        " (0, 0, 0) 3, (111, 193, 228) 1\n"
    )


def test_nothing_is_reported_where_all_colours_are_known(tmp_path, capsys):
    write_tile(tmp_path / "Tile 1")
    write_tile(tmp_path / "Tile 2", colour=UNLABELED)
    dataset().check(np.bincount([2, 5], minlength=256), dubai_aerial.find(tmp_path, "train"))
    assert not capsys.readouterr().out


def test_masks_without_any_class_are_refused_with_their_colours(tmp_path):
    write_tile(tmp_path / "Tile 1", colour=(80, 227, 194))
    files = dubai_aerial.find(tmp_path, "train")
    pixels = np.bincount(dataset().read(files[0], "train")[1].ravel(), minlength=256)
    with pytest.raises(InputError, match=r"the most frequent are \(80, 227, 194\) 24"):
        dataset().check(pixels, files)


def test_what_does_not_fit_is_named(tmp_path):
    write_tile(tmp_path / "Tile 1")
    files = dubai_aerial.find(tmp_path, "train")[0]
    with pytest.raises(InputError, match=r"part_1\.jpg: 6x4 pixels hold no patch of 5;.*--patch_size"):
        dataset(patch_size=5).read(files, "train")
    write_mask(files[1], np.zeros((6, 4, 3)))
    with pytest.raises(InputError, match=r"part_1\.png: 4x6 pixels, but its photo has 6x4"):
        dataset().read(files, "train")


# --- splits

OWNER = np.repeat(np.arange(23), np.random.RandomState(0).randint(1, 9, 23))


@pytest.mark.parametrize("split_by", ["patch", "image"])
def test_splits_are_disjoint_complete_and_follow_their_seed(split_by):
    def rows(split, seed):
        return dataset(split_by=split_by, split_seed=seed).select(OWNER, split)

    training, validation = rows("train", 1), rows("val", 1)
    assert sorted([*training, *validation]) == list(range(len(OWNER)))
    np.testing.assert_array_equal(validation, rows("val", 1))
    assert not np.array_equal(validation, rows("val", 2))
    photos = set(OWNER[training]) & set(OWNER[validation])
    if split_by == "image":
        assert not photos and len(set(OWNER[validation])) == 3  # a tenth of 23, rounded up
    else:
        assert photos and len(validation) == -(-len(OWNER) // 10)


def test_a_split_by_patch_is_that_of_scikit_learn():
    # what sorted(train_test_split(np.arange(40), test_size=0.1, random_state=42)[1]) gives
    np.testing.assert_array_equal(dataset().select(np.zeros(40, int), "val"), [15, 16, 19, 26])


def test_one_photo_or_patch_cannot_be_split():
    with pytest.raises(InputError, match="one image cannot be split"):
        dataset(split_by="image").select(np.zeros(9, int), "train")
    with pytest.raises(InputError, match="one patch cannot be split"):
        dataset().select(np.zeros(1, int), "val")


# --- network


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_equal_keras(training, monkeypatch):
    """Whole network; for training, what both do in the place of dropout is a scaling by its rate."""
    monkeypatch.setattr(ops, "dropout", lambda x, rate, seed, layer: x if seed is None else x * (1 - rate))
    if training:
        monkeypatch.setattr(layers, "Dropout", lambda rate: layers.Rescaling(1 - rate))
    made = dubai_unet.init_weights(seed=1, classes=6)
    for index, (name, variable) in enumerate(made.items()):
        if name.endswith("bias"):
            variable.assign(tf.random.stateless_uniform(variable.shape, [index, 0], -0.2, 0.2))
    reference = keras_baselines.dubai_unet(dubai_unet.FILTERS, 6)
    reference.set_weights([variable.numpy() for variable in made.values()])
    images = tf.random.stateless_uniform([2, 32, 48, 3], [3, 4], 0, 255)
    masks = tf.random.stateless_uniform([2, 32, 48], [5, 6], 0, 6, tf.int32)
    with tf.GradientTape() as tape, tf.GradientTape() as reference_tape:
        logits = dubai_unet.forward(made, images, training=training, seed=[0, 0])
        expected = reference(images, training=False)
        loss = tf.reduce_mean(losses.categorical_cross_entropy(logits, masks))
        reference_loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(masks, tf.nn.softmax(expected))
        )
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert float(loss) == pytest.approx(float(reference_loss), abs=1e-4)
    gradients = tape.gradient(loss, list(made.values()))
    expected_gradients = reference_tape.gradient(reference_loss, reference.trainable_weights)
    for name, gradient, expected in zip(made, gradients, expected_gradients, strict=True):
        scale = np.abs(expected).max()  # some gradients are all below 1e-4
        np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-4, err_msg=name)


def test_the_articles_parameter_count():
    made = dubai_unet.init_weights(seed=0, classes=6)
    assert (len(made), weights.count(made)) == (46, 1_421_830)


def test_initial_values_are_those_of_the_articles_layers():
    made = dubai_unet.init_weights(seed=0, classes=6)
    he, glorot = made["down4/conv2/kernel"].numpy(), made["up3/transpose/kernel"].numpy()
    assert he.std() == pytest.approx(np.sqrt(2 / (9 * 160)), rel=0.02)
    assert np.abs(glorot).max() == pytest.approx(np.sqrt(6 / (4 * (160 + 128))), rel=0.01)
    assert not any(value.numpy().any() for name, value in made.items() if name.endswith("bias"))


def test_dropout_changes_training_alone_and_follows_the_seed(monkeypatch):
    made = dubai_unet.init_weights(seed=0, filters=SMALL, classes=6)
    images = tf.random.stateless_uniform([1, 8, 8, 3], [0, 0], 0, 255)
    first, again, other, still, unseeded = (
        dubai_unet.forward(made, images, training=training, seed=seed).numpy()
        for training, seed in ((True, [0, 1]), (True, [0, 1]), (True, [0, 2]), (False, [0, 1]), (True, None))
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(still, unseeded)
    assert not np.array_equal(first, other) and not np.array_equal(first, still)
    drawn = []
    monkeypatch.setattr(ops, "dropout", lambda x, rate, seed, layer: drawn.append(layer) or x)
    dubai_unet.forward(made, images, training=True, seed=[0, 1])
    assert len(drawn) == len(set(drawn)) == 5  # each layer draws its own


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_any_multiple_of_the_network_in_either_precision(dtype):
    made = dubai_unet.init_weights(seed=0, filters=SMALL, classes=6)
    for height, width in ((4, 4), (12, 20)):
        logits = dubai_unet.forward(made, tf.zeros([1, height, width, 3], dtype), training=True, seed=[0, 0])
        assert logits.shape == (1, height, width, 6) and logits.dtype == dtype


# --- figures


def test_soft_figures_are_the_articles_formulas():
    rng = np.random.RandomState(0)
    logits, masks = rng.normal(size=(3, 4, 5, 6)).astype(np.float32), rng.randint(0, 6, (3, 4, 5))
    prediction = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    truth = np.eye(6)[masks]

    def index(t, p):
        return ((t * p).sum() + 1) / (t.sum() + p.sum() - (t * p).sum() + 1)

    for graph in (lambda function: function, functools.partial(tf.function, autograph=False)):
        jaccard = graph(article.soft_jaccard)(logits, masks)
        np.testing.assert_allclose(jaccard, np.full(3, index(truth, prediction)), rtol=1e-5)
        each = [index(t, p) for t, p in zip(truth, prediction)]
        np.testing.assert_allclose(graph(article.soft_iou)(logits, masks), each, rtol=1e-5)


def test_soft_figures_of_certain_logits_are_those_of_decided_classes():
    masks = np.array([[[0, 1], [2, 3]], [[4, 5], [0, 0]]])
    wrong = np.array([[[0, 1], [2, 3]], [[4, 5], [1, 1]]])  # 6 of 8 pixels right
    logits = 100 * np.eye(6, dtype=np.float32)[wrong]
    np.testing.assert_allclose(article.soft_jaccard(logits, masks), [7 / 11, 7 / 11], rtol=1e-6)
    np.testing.assert_allclose(article.soft_iou(logits, masks), [1, 3 / 7], rtol=1e-6)


# --- generated data, and the whole


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "data"
    dubai_aerial.generate(folder)
    return folder


def test_generated_tiles_differ_in_size_and_hold_every_class(generated):
    files = dubai_aerial.find(generated, "train")
    assert [mask.parents[1].name for _, mask in files] == [f"Tile {t}" for t in (1, 2, 3, 4) for _ in "123"]
    sizes, pixels = set(), 0
    for photo, mask in files:
        with Image.open(photo) as image, Image.open(mask) as colours:
            assert image.format == "JPEG" and image.size == colours.size
            assert colours.mode == ("P" if mask.parents[1].name in ("Tile 2", "Tile 4") else "RGB")
            assert all(340 <= side <= 660 for side in image.size)
            sizes.add(image.size)
        pixels += np.bincount(dataset(patch_size=160).read((photo, mask), "train")[1].ravel(), minlength=256)
    assert len(sizes) == 4
    assert (pixels[:6] > 0).all() and not pixels[6:].any()


def test_generated_scenes_follow_from_their_seed_and_number_the_classes_alike():
    scene = aerial_scenes.scene((0, 1), size=(60, 80))
    assert scene[0].shape == (60, 80, 3) and scene[1].shape == (60, 80)
    for first, again in zip(scene, aerial_scenes.scene((0, 1), size=(60, 80))):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(scene[1], aerial_scenes.scene((0, 2), size=(60, 80))[1])
    for number, name in enumerate(dubai_aerial.CLASSES):
        assert getattr(aerial_scenes, name.upper()) == number


def test_one_epoch_on_generated_data(generated, tmp_path, capsys):
    flags = cli.parse(
        article.define_flags,
        [
            *("--epochs=1", "--patch_size=64", "--limit=2", "--batch_size=16", "--split_by=image"),
            *(f"--data_dir={generated}", f"--run_dir={tmp_path}/run", f"--cache_dir={tmp_path}/cache"),
        ],
    )
    assert loop.run(article.experiment(flags), article.define_flags, flags) == 0
    printed = capsys.readouterr().out
    assert "1,421,830 parameters" in printed
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0]
    for name in ("val_loss", "val_accuracy", "val_jaccard", "val_iou_coefficient", "val_mean_iou"):
        assert name in header.split(",")


@pytest.mark.parametrize("flag", ["--patch_size=100", "--patch_size=0", "--split_by=tile", "--split_seed=-1"])
def test_impossible_flags_are_refused(flag):
    with pytest.raises(InputError, match=flag.split("=")[0].strip("-")):
        cli.parse(article.define_flags, [flag])
