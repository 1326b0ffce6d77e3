"""Each augmentation is a function of its seed and changes photo and mask in the same way."""

import numpy as np
import tensorflow as tf

from core.data import augment


def test_dihedral_makes_the_eight_symmetries_of_the_square():
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3)
    image = np.repeat(mask[..., None], 3, axis=-1)
    symmetries = {np.rot90(turned, count).tobytes() for turned in (mask, mask.T) for count in range(4)}
    dihedral = tf.function(augment.dihedral)  # as tf.data calls it
    found = set()
    for number in range(100):
        changed, changed_mask = dihedral(image, mask, tf.constant([number, 1], tf.int64))
        np.testing.assert_array_equal(changed[..., 0], changed_mask)
        found.add(changed_mask.numpy().tobytes())
    assert found == symmetries


def test_zoom_enlarges_the_same_window_of_photo_and_mask():
    """The photo's first channel holds row numbers, and the mask holds three times the row numbers.

    After a zoom, the row numbers of photo and mask differ by at most 1.
    """
    rows, columns = np.mgrid[:64, :48].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=-1)
    sides, corners = set(), set()
    for number in range(60):
        zoomed, mask = augment.zoom(image, 3 * rows, tf.constant([number, 1], tf.int64))
        assert zoomed.shape == (64, 48, 3) and mask.shape == (64, 48) and zoomed.dtype == tf.uint8
        assert not (mask.numpy() % 3).any()  # a zoomed mask contains no class ids between the original ones
        assert np.abs(zoomed[..., 0].numpy().astype(int) - mask.numpy() // 3).max() <= 1
        down, across = np.ptp(zoomed[..., 0]) + 1, np.ptp(zoomed[..., 1]) + 1
        assert 43 <= down <= 64 and abs(down / 64 - across / 48) < 0.05
        sides.add(int(down))
        corners.add((int(zoomed[0, 0, 0]), int(zoomed[0, 0, 1])))
    assert len(sides) > 12 and len(corners) > 20


def test_colour_changes_only_the_photo():
    rng = np.random.RandomState(0)
    image, mask = rng.randint(60, 120, (8, 8, 3)).astype(np.uint8), rng.randint(0, 3, (8, 8))
    means, contrasts, saturations = [], [], []
    for number in range(50):
        changed, same = augment.colour(image, mask, tf.constant([number, 1], tf.int64))
        assert changed.dtype == tf.uint8 and same is mask
        means.append(changed.numpy().mean() / image.mean())
        values = changed.numpy() / changed.numpy().mean()  # independent of brightness
        contrasts.append(values.std())
        saturations.append(np.ptp(values, axis=2).mean() / values.std())  # and of contrast
        white, _ = augment.colour(np.full_like(image, 255), mask, tf.constant([number, 1], tf.int64))
        assert white.numpy().min() >= 178  # 0.7 * 255; larger values than 255 become 255
        assert np.corrcoef(changed.numpy().ravel(), image.ravel())[0, 1] > 0.8
    assert 0.69 < min(means) < 0.8 and 1.2 < max(means) < 1.31
    assert max(contrasts) > 1.3 * min(contrasts) and max(saturations) > 1.05 * min(saturations)
