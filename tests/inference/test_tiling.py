"""Tiled equals whole: for each network, at odd sizes, with the reach that was found for it."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from core import ops
from core.inference import tiling
from core.models import dubai_unet, labels_unet, mobilenet_unet, pets_unet, road_unet
from core.runtime.errors import InputError

FILTERS = (4, 4, 6, 6, 8)  # the depth is the articles', which is what counts
NETWORKS = {
    # reach of the U-Nets, by hand: two 3x3 on five levels down, 2 * (1 + 2 + 4 + 8 + 16) = 62, on
    # four up, 30, and the pixel's place in four poolings, 15; a 3x3 transposed one adds 1 + 2 + 4 + 8
    "road": (
        road_unet,
        {"filters": (*FILTERS[:4], 128)},
        16,
        107,
    ),  # one layer that is a fast one unless plain
    "dubai": (dubai_unet, {"filters": FILTERS, "classes": 6}, 16, 107),
    "labels": (labels_unet, {"filters": FILTERS, "classes": 34}, 16, 107),
    "pets": (pets_unet, {"filters": FILTERS, "classes": 3}, 16, 122),
    "mobilenet": (mobilenet_unet, {"classes": 3}, 32, 276),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_tiled_is_whole(name):
    network, options, multiple, reach = NETWORKS[name]
    weights = network.init_weights(seed=0, **options)
    assert tiling.multiple(network.forward, weights) == multiple
    assert tiling.receptive_field_radius(network.forward, weights, multiple) == reach

    overlap = -(-reach // multiple) * multiple
    image = noise(2 * overlap + 3 * multiple + 5, 2 * overlap + 4 * multiple + 11)
    both_ways = name == "road"  # with the mirror image once
    function = compiled(tiling.mirrored(network.forward) if both_ways else network.forward, weights, multiple)
    whole = function(image[None])[0].numpy()
    tiles = functools.partial(in_tiles, function, image, 2 * overlap + 2 * multiple, multiple=multiple)
    np.testing.assert_allclose(tiles(overlap=reach), whole, rtol=0, atol=1e-5)
    if name == "pets":  # what the overlap is for
        assert np.abs(tiles(overlap=multiple) - whole).max() > 1e-3


def compiled(forward, weights, multiple):
    any_size = tiling.padded(forward, multiple)
    return tf.function(lambda images: any_size(weights, tf.cast(images, tf.float32)), reduce_retracing=True)


def in_tiles(function, image, tile, *, overlap, multiple):
    height, width = image.shape[:2]
    joined, parts = None, 0
    for rows, columns, part in tiling.tiled(
        function,
        lambda top, left, bottom, right: image[top:bottom, left:right],
        height,
        width,
        tile=tile,
        overlap=overlap,
        multiple=multiple,
    ):
        if joined is None:
            joined = np.full([height, width, part.shape[-1]], np.nan, np.float32)
        joined[rows, columns] = part
        parts += 1
    assert parts >= 4
    return joined


def noise(height, width):
    return np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)


def test_reach_and_multiple_of_layers_known_by_hand():
    def convolutions(weights, x):
        return ops.conv2d(ops.conv2d(x, weights["one"]), weights["two"])

    def pooled(weights, x):
        return ops.maxpool_up(ops.maxpool_down(x)) + x

    def strided(weights, x):
        """Place j holds inputs 2j .. 2j + 2 and goes to outputs 2j - 1 .. 2j + 3."""
        x = tf.nn.conv2d(x, weights["one"], strides=2, padding="SAME")
        return ops.conv2d_transpose(x, weights["two"], stride=2)

    weights = {"one": tf.ones([3, 3, 3, 3]), "two": tf.ones([5, 5, 3, 3])}
    for forward, multiple, reach in ((convolutions, 1, 3), (pooled, 2, 1), (strided, 2, 3)):
        assert tiling.multiple(forward, weights) == multiple, forward
        assert tiling.receptive_field_radius(forward, weights, multiple) == reach, forward
    with pytest.raises(InputError, match="--tile: .* depend on inputs"):
        tiling.receptive_field_radius(
            lambda weights, x: x + tf.reduce_mean(x, axis=[1, 2], keepdims=True), weights, 4
        )
    with pytest.raises(InputError, match="--tile: must hold .* nothing tells"):
        tiling.receptive_field_radius(lambda weights, x: 0 * convolutions(weights, x), weights, 4)


def test_a_scale_of_ones_own_does_not_shut_the_way():
    def forward(weights, x):
        return x + weights["gate"] * ops.conv2d(x, weights["kernel"])

    weights = {"gate": tf.zeros([3]), "kernel": tf.ones([5, 5, 3, 3])}
    assert tiling.receptive_field_radius(forward, weights, 1) == 2


def test_spans_cover_each_place_once_from_inputs_far_enough_away():
    for length in range(1, 40):
        for tile, overlap in ((8, 2), (9, 4), (3, 1), (5, 0), (50, 3)):
            covered = []
            for origin, start, stop in tiling.spans(length, tile, overlap):
                assert 0 <= origin and origin + min(tile, length) <= length
                assert start == 0 or start - origin >= overlap
                assert stop == length or origin + tile - stop >= overlap
                covered += range(start, stop)
            assert covered == list(range(length)), (length, tile, overlap)


def test_padding_repeats_the_edge_and_is_cut_off():
    seen = []

    def forward(weights, x):
        seen.append(x.numpy())
        return x * 2

    image = noise(3, 5)[None].astype(np.float32)
    np.testing.assert_array_equal(tiling.padded(forward, 4)({}, tf.constant(image)), image * 2)
    np.testing.assert_array_equal(seen[0], np.pad(image, ((0, 0), (0, 1), (0, 3), (0, 0)), "edge"))


def test_a_tile_that_the_overlap_eats_up_is_refused():
    with pytest.raises(InputError, match="--tile: must be above 224 pixels"):
        list(tiling.tiled(None, None, 999, 999, tile=224, overlap=107, multiple=16))
