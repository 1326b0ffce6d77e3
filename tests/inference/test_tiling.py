"""Logits computed in tiles equal logits of the whole image; the properties that tiling needs are correct."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from core import lowering, ops
from core.inference import receptive_field, tiling
from core.lowering import policy
from core.models import dubai_unet, labels_unet, mobilenet_unet, pets_unet, road_unet
from core.runtime.errors import InputError

FILTERS = (4, 4, 6, 6, 8)  # narrow layers, but as many levels as in the articles
WIDE = (*FILTERS[:4], 128)  # the deepest layer is wide enough for Winograd's convolution
NETWORKS = {
    # name: network, options of its weights, multiple, radius of the receptive field. The radius of 107 by
    # hand: two 3x3 convolutions per level give 2 * (1 + 2 + 4 + 8 + 16) = 62 in the encoder and 30 in the
    # decoder; four poolings add 15. 3x3 transposed convolutions (pets) add another 1 + 2 + 4 + 8.
    "road": (road_unet, {"filters": WIDE}, 16, 107),
    "dubai": (dubai_unet, {"filters": FILTERS, "classes": 6}, 16, 107),
    "labels": (labels_unet, {"filters": FILTERS, "classes": 34}, 16, 107),
    "pets": (pets_unet, {"filters": WIDE, "classes": 3}, 16, 122),
    "mobilenet": (mobilenet_unet, {"classes": 3}, 32, 276),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_the_logits_of_the_whole_image(name, monkeypatch):
    network, options, multiple, radius = NETWORKS[name]
    if network is mobilenet_unet:
        monkeypatch.setattr(mobilenet_unet, "FILTERS", FILTERS[:4])
    weights = network.init_weights(seed=0, **options)
    assert tiling.multiple(network.forward, weights) == multiple
    assert receptive_field.radius(network.forward, weights, multiple) == radius
    if name in ("dubai", "labels"):  # the radius equals that of road, with which the tiles are tested
        return

    overlap = -(-radius // multiple) * multiple
    columns_of_tiles = 2 if name == "road" else 1  # a single column of tiles saves time
    width = 2 * overlap + 6 * multiple + 11 if columns_of_tiles == 2 else 75
    image = noise(2 * overlap + 8 * multiple + 5, width)
    mirror = name == "road"
    function = compiled(tiling.mirrored(network.forward) if mirror else network.forward, weights, multiple)
    whole = function(image[None])[0].numpy()
    tiles = functools.partial(in_tiles, function, image, 2 * overlap + 4 * multiple, multiple=multiple)
    np.testing.assert_allclose(tiles(overlap=radius), whole, rtol=0, atol=1e-5)
    if name == "pets":  # a smaller overlap must give other results, so the radius is not too large
        assert np.abs(tiles(overlap=multiple) - whole).max() > 1e-3


def test_tiles_give_the_logits_of_the_whole_image_in_bfloat16(monkeypatch):
    """The test fails if Winograd's windows begin at other image rows in tiles than in the whole image."""
    # on a CPU with AMX, Winograd is not used in bfloat16
    monkeypatch.setattr(policy, "_has_amx", lambda: False)
    before = lowering.applied()["winograd"]
    weights = pets_unet.init_weights(seed=0, filters=(16, 16, 16, 16, 128), classes=3)
    function = compiled(pets_unet.forward, weights, 16, tf.bfloat16)
    image = noise(416, 300)
    whole = function(image[None])[0].numpy()
    tiles = in_tiles(function, image, 320, overlap=122, multiple=16)
    assert (tiles != whole).mean() < 1e-3
    assert lowering.applied()["winograd"] > before


def compiled(forward, weights, multiple, dtype=tf.float32):
    any_size = tiling.padded(forward, multiple)

    @functools.partial(tf.function, reduce_retracing=True)
    def logits(images):
        return tf.cast(any_size(weights, tf.cast(images, dtype)), tf.float32)

    return logits


def in_tiles(function, image, tile, *, overlap, multiple):
    height, width = image.shape[:2]
    joined, parts = None, 0
    for rows, columns, (part,) in tiling.tiled(
        lambda pixels: [function(pixels[None])[0].numpy()],
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
    assert parts >= 2
    return joined


def noise(height, width):
    return np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)


def test_multiple_and_radius_of_layers_that_can_be_computed_by_hand():
    def convolutions(weights, x):
        return ops.conv2d(ops.conv2d(x, weights["one"]), weights["two"])

    def pooled(weights, x):
        return ops.maxpool_up(ops.maxpool_down(x)) + x

    def strided(weights, x):
        """A convolution and a transposed convolution, both of stride 2.

        Position j between them depends on the inputs 2j .. 2j + 2 and contributes to the outputs
        2j - 1 .. 2j + 3.
        """
        x = tf.nn.conv2d(x, weights["one"], strides=2, padding="SAME")
        return ops.conv2d_transpose(x, weights["two"], stride=2)

    def attention(weights, x):
        """A softmax over channels, whose output is constant if all channels are equal."""
        return x + ops.conv2d(tf.nn.softmax(ops.conv2d(x, weights["one"])), weights["two"])

    def added_mean(weights, x):
        return x + tf.reduce_mean(x, axis=[1, 2], keepdims=True)

    def scaled_by_mean(weights, x):
        return x * tf.sigmoid(tf.reduce_mean(x / 255, axis=[1, 2], keepdims=True))

    weights = {"one": tf.ones([3, 3, 3, 3]), "two": tf.ones([5, 5, 3, 3])}
    networks = (convolutions, 1, 3), (pooled, 2, 1), (strided, 2, 3), (attention, 1, 3)
    for forward, multiple, radius in networks:
        assert tiling.multiple(forward, weights) == multiple, forward
        assert receptive_field.radius(forward, weights, multiple) == radius, forward
    for edit in (added_mean, scaled_by_mean):
        with pytest.raises(InputError, match="--tile: .* depend on inputs"):
            receptive_field.radius(edit, weights, 4)
    with pytest.raises(InputError, match="--tile: must be at least .* changed no output"):
        receptive_field.radius(lambda weights, x: 0 * convolutions(weights, x), weights, 4)


def test_a_gate_of_a_feature_map_belongs_to_the_receptive_field():
    def forward(weights, x):
        return x * tf.sigmoid(ops.conv2d(x / 255, weights["gate"]))

    weights = {"gate": 0.1 * tf.ones([7, 5, 3, 3])}
    assert receptive_field.radius(forward, weights, 1) == 3


def test_a_lack_of_memory_is_not_reported_as_a_fault_of_the_network():
    def forward(weights, x):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        tiling.multiple(forward, {})


def test_reflection_padding_does_not_prevent_the_measurement():
    def forward(weights, x):
        x = tf.pad(ops.maxpool_down(x), [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
        return ops.maxpool_up(tf.nn.conv2d(x, weights["kernel"], 1, "VALID"))

    assert receptive_field.radius(forward, {"kernel": tf.ones([3, 3, 3, 3])}, 2) == 3


def test_a_network_that_accepts_sides_which_its_stride_does_not_divide_is_refused():
    def forward(weights, x):
        return tf.image.resize(tf.nn.conv2d(x, weights["stem"], 4, "SAME"), tf.shape(x)[1:3])

    weights = {"stem": tf.ones([7, 7, 3, 3])}
    assert tiling.multiple(forward, weights) == 1
    with pytest.raises(InputError, match="shifted by 1 pixels"):
        receptive_field.radius(forward, weights, 1)


def test_a_scale_that_starts_at_zero_does_not_block_the_probe():
    def forward(weights, x):
        return x + weights["gate"] * ops.conv2d(x, weights["kernel"])

    weights = {"gate": tf.zeros([3]), "kernel": tf.ones([3, 5, 3, 3])}
    assert receptive_field.radius(forward, weights, 1) == 2


def test_spans_cover_each_output_once_with_enough_inputs_around_it():
    for length in range(1, 60):
        for tile, overlap, align in (
            (8, 2, 1),
            (9, 4, 1),
            (3, 1, 1),
            (5, 0, 1),
            (50, 3, 1),
            (9, 2, 4),
            (16, 4, 8),
        ):
            covered = []
            for origin, start, stop in tiling.spans(length, tile, overlap, align):
                assert 0 <= origin < length and origin % align == 0
                assert start == 0 or start - origin >= overlap
                assert stop == length or origin + tile - stop >= overlap
                assert stop <= origin + tile
                covered += range(start, stop)
            assert covered == list(range(length)), (length, tile, overlap, align)


def test_padding_repeats_the_edge_and_is_cropped_off():
    seen = []

    def forward(weights, x):
        seen.append(x.numpy())
        return x * 2

    image = noise(3, 5)[None].astype(np.float32)
    np.testing.assert_array_equal(tiling.padded(forward, 4)({}, tf.constant(image)), image * 2)
    np.testing.assert_array_equal(seen[0], np.pad(image, ((0, 0), (0, 1), (0, 3), (0, 0)), "edge"))


def test_a_tile_too_small_for_the_overlap_is_refused():
    with pytest.raises(InputError, match="--tile: must be above 224 pixels"):
        list(tiling.tiled(None, None, 999, 999, tile=224, overlap=107, multiple=16))
