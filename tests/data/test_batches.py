"""Order and augmentation of the images are functions of (seed, epoch, example)."""

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import decoded

from core.data import augment, batches, resident
from core.runtime.errors import InputError

STATUS = Path("/proc/self/status")


@pytest.fixture
def examples(tmp_path):
    """Return eleven `Examples`. All pixel values of image i are i. The split leaves out image 4.

    In each mask, row 1 holds the number of the image, and the other rows hold the numbers of the columns.
    """
    numbers = np.arange(11, dtype=np.uint8)
    masks = np.broadcast_to(np.arange(8, dtype=np.uint8), (11, 6, 8)).copy()
    masks[:, 1] = numbers[:, None]
    return decoded(
        tmp_path,
        np.broadcast_to(numbers[:, None, None, None], (11, 6, 8, 3)),
        masks,
        rows=[0, 1, 2, 3, 5, 6, 7, 8, 9, 10],
    )


def order(examples, **options):
    data = batches.training(examples, 4, **{"seed": 1, "epoch": 2, **options})
    return [images[:, 0, 0, 0].numpy().tolist() for images, _, _ in data]


def test_an_epoch_has_each_example_once_including_the_last_batch(examples):
    seen = order(examples)
    assert [len(batch) for batch in seen] == [4, 4, 2]
    assert sorted(sum(seen, [])) == examples.rows.tolist()
    assert seen == order(examples)
    assert seen != order(examples, epoch=3) and seen != order(examples, seed=2)


def test_an_epoch_continues_from_any_step(examples):
    assert order(examples, first_step=2) == order(examples)[2:]
    assert order(examples, first_step=3) == []


def test_images_on_the_device_give_the_batches_that_are_read_from_the_cache(examples):
    on_device = resident.make_training(examples, 4, seed=1)(2, 1)
    read = batches.training(examples, 4, seed=1, epoch=2, first_step=1)
    for one, other in zip(on_device, read, strict=True):
        for part, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, expected)


def test_a_part_of_an_array_is_refused(examples):
    half = dataclasses.replace(examples, images=examples.images[:, :3], masks=examples.masks[:, :3])
    with pytest.raises(InputError, match="select examples by rows, not by slicing"):
        batches.evaluation(half, 4)


def test_each_augmentation_of_each_example_gets_its_own_seed():
    seeds = []

    def note(image, mask, seed):
        seeds.append(tuple(seed.numpy()))
        return image, mask

    for row, seed in itertools.product((0, 1), ([0, 0], [1, 0], [0, 1])):
        batches.change(None, None, row, seed, [note, note])
    assert len(set(seeds)) == 12


def test_the_shuffle_spans_the_whole_set(tmp_path):
    """A shuffle buffer smaller than the set would take the first batch only from the start of the set."""
    numbers = np.arange(2000, dtype=np.uint16).view(np.uint8).reshape(2000, 1, 1, 2)
    many = decoded(tmp_path, numbers, np.zeros((2000, 1, 1), np.uint8))
    first = next(iter(batches.training(many, 200, seed=0, epoch=0)))[0].numpy()
    seen = first.reshape(-1, 2).astype(int) @ [1, 256]
    assert seen.min() < 100 and seen.max() > 1900


@pytest.mark.skipif(
    not STATUS.exists() or "RssFile:" not in STATUS.read_text(), reason="reads RssFile from /proc"
)
def test_an_epoch_keeps_no_mapped_pages_in_memory(tmp_path):
    """If training read the cache through a memory map, the pages of a large set would stay in memory."""
    images = np.zeros((500, 256, 256, 3), np.uint8)  # 94 MiB
    examples = decoded(tmp_path, images, images[..., 0])

    def pages():
        return int(re.search(r"RssFile:\s+(\d+) kB", STATUS.read_text())[1]) / 1024

    next(iter(batches.training(examples, 10, seed=0, epoch=1)))  # loads TensorFlow's code for such pipelines
    before = pages()
    for _ in batches.training(examples, 10, seed=0, epoch=0):
        pass
    assert pages() - before < 20


def test_evaluation_keeps_the_order_and_the_partial_last_batch(examples):
    seen = [images[:, 0, 0, 0].numpy().tolist() for images, _, _ in batches.evaluation(examples, 4)]
    assert seen == [[0, 1, 2, 3], [5, 6, 7, 8], [9, 10]]


def test_a_cache_file_that_has_become_shorter_is_refused(examples):
    path = Path(examples.images.filename)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="its size differs from the mapped array"):
        batches.evaluation(examples, 4)


def test_an_epoch_is_not_disturbed_if_the_cache_is_deleted(examples):
    epoch = iter(batches.evaluation(examples, 4))
    Path(examples.images.filename).unlink()
    Path(examples.masks.filename).unlink()
    assert [images[:, 0, 0, 0].numpy().tolist() for images, _, _ in epoch][-1] == [9, 10]


def flips(examples, **options):
    """Draw one epoch with augmentation by flips; return a dict: number of an image -> whether it was flipped.

    options: arguments of `batches.training` that replace the arguments seed, epoch and changes set here.
    """
    options = {"seed": 1, "epoch": 0, "changes": [augment.flip], **options}
    found = {}
    for images, masks, _ in batches.training(examples, 4, **options):
        for image, mask in zip(images.numpy(), masks.numpy()):
            assert mask[0].tolist() in ([*range(8)], [*range(7, -1, -1)])
            found[int(image[0, 0, 0])] = bool(mask[0, 0])
    return found


def test_augmentation_differs_by_epoch_and_is_the_same_after_a_resume(examples):
    first = flips(examples)
    assert first == flips(examples)
    assert flips(examples, epoch=1) != first and flips(examples, seed=2) != first
    assert set(first.values()) == {True, False}
    rest = flips(examples, first_step=1)
    assert rest == {number: first[number] for number in rest} and len(rest) == 6


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "in tf.data"])
def test_photo_and_mask_are_cropped_and_flipped_together(traced):
    mask = np.arange(30, dtype=np.uint8).reshape(5, 6)
    image = np.repeat(mask[..., None], 3, axis=-1)

    def change(image, mask, seed):
        image, mask = augment.random_crop(image, mask, seed, size=3)
        return augment.flip(image, mask, seed + 1)

    run = tf.function(change) if traced else change
    corners, flipped = set(), set()
    for index in range(200):
        crop, cut = (part.numpy() for part in run(image, mask, tf.constant([index, 7], tf.int64)))
        assert crop.shape == (3, 3, 3)
        np.testing.assert_array_equal(crop[..., 0], cut)
        flipped.add(bool(cut[0, 0] > cut[0, 2]))
        corners.add(int(cut[0].min()))
    assert flipped == {True, False}
    assert corners == {6 * top + left for top in range(3) for left in range(4)}


def test_the_autotuner_of_tf_data_is_disabled(tmp_path):
    """The autotuner can delay the shutdown of an iterator by up to 60 s."""
    examples = decoded(tmp_path, np.zeros([2, 4, 4, 3], np.uint8), np.zeros([2, 4, 4], np.uint8))
    for data in (batches.training(examples, 1, seed=0, epoch=0), batches.evaluation(examples, 1)):
        assert data.options().autotune.enabled is False
