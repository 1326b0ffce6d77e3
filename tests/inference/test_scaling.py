"""Scaling photos and logits, against Pillow and `tf.image.resize`."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from core.inference import scaling
from core.runtime.errors import InputError


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR])
def test_images_scaled_in_a_graph_equal_pillow(resample):
    scale = tf.function(lambda images: scaling.resize_images(images, 32, resample), reduce_retracing=True)
    for height, width in ((37, 61), (32, 32), (1, 9), (150, 70)):
        images = np.random.RandomState(0).randint(0, 256, (2, height, width, 3)).astype(np.uint8)
        for image, scaled in zip(images, scale(images.astype(np.float32)).numpy()):
            expected = np.asarray(Image.fromarray(image).resize((32, 32), resample), int)
            assert np.abs(scaled - expected).max() <= (resample == Image.Resampling.BILINEAR)
            # values halfway between two levels may be rounded differently
            assert (scaled != expected).mean() < 0.2
    with pytest.raises(InputError, match="BICUBIC is not available in exports"):
        scaling.resize_images(tf.zeros([1, 8, 8, 3]), 4, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("height, width", [(1, 1), (8, 6), (9, 31), (40, 3), (16, 12)])
def test_strips_of_scaled_logits_equal_tf_image_resize(monkeypatch, height, width):
    logits = np.random.RandomState(0).normal(size=(8, 6, 3)).astype(np.float32)
    whole = tf.image.resize(logits, [height, width]).numpy()
    for values in (1, 500, 2**22):
        monkeypatch.setattr(scaling, "STRIP_VALUES", values)
        strips = list(scaling.logit_strips(logits, height, width))
        assert all(strip.size <= max(values, width * 3) for strip in strips)
        np.testing.assert_allclose(np.concatenate(strips), whole, rtol=0, atol=1e-5)
