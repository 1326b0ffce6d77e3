"""Draw an experiment's network as an SVG diagram, from the traced graph of its forward pass.

Run: python -m experiments.draw_network --experiment=cityscape_road --output=road_unet.svg

Each box is a feature map. Above the box is the map's number of channels; maps with more channels have wider
boxes. All maps in a row of boxes have the same height and width, which are printed to the left of the row.

A line leads from each map to the maps that are computed from it. Three kinds of lines have a colour of their
own: max-pooling, up-sampling and skip connections. The results of max-pooling and up-sampling have no boxes.
A legend below the boxes explains the colours.
"""

import dataclasses
import itertools
from pathlib import Path

import tensorflow as tf
from absl import flags

from core import lowering
from core.runtime import cli, files
from experiments import summary

STEP, MARGIN = 22, 74  # pixels between neighbouring boxes, and to the left of the first box
# fill colours of the boxes: each kind of feature map gets the next colour when it first appears; after the
# last colour, the first colour follows again
COLOURS = ("#333333", "#4878a8", "#bbbbbb", "#d08a3c", "#9467a8", "#6a9a58")
# meaning of a line -> colour of the line; a `Map` whose kind is one of these meanings has no box
ARROWS = {"max-pooling": "#c03030", "up-sampling": "#308030", "skip connection": "#8080c0"}


@dataclasses.dataclass(eq=False)  # maps are compared by identity
class Map:
    """A feature map and the position of its box in the diagram.

    kind:      the operation that computes the map, such as "3x3 convolution".
    side:      (height, width) of the map.
    channels:  the number of channels of the map.
    sources:   list of the `Map`s from which this map is computed.
    left:      the position of the box's left edge.
    width:     the width of the box.
    bottom:    the position of the box's lower edge.
    middle:    the position of the box's vertical centre.

    `svg` sets the last four fields if the map has a box. These fields are in pixels. Positions are measured
    from the left and the top of the diagram.
    """

    kind: str
    side: tuple
    channels: int
    sources: list
    left: float = 0
    width: float = 0
    bottom: float = 0
    middle: float = 0


def feature_maps(forward, weights, size):
    """Return the `Map`s of a forward pass for one image of size x size pixels, in the order of computation.

    forward: as in `core.experiment.Experiment`. weights: name -> `tf.Variable`. The list has a `Map` for the
    images and for the result of each convolution, concatenation, max-pooling and up-sampling. Biases,
    activations and normalisation do not make a new `Map`.
    """
    with lowering.disabled():
        function = tf.function(lambda images: forward(weights, images), autograph=False)
        graph = function.get_concrete_function(tf.TensorSpec([1, size, size, 3])).graph
    maps = {}
    for op in graph.get_operations():
        kind = _kind(op)
        if kind and len(op.outputs[0].shape) == 4:
            _, height, width, channels = op.outputs[0].shape
            maps[op.name] = Map(kind, (height, width), channels, _sources(op, maps))
    return list(maps.values())


def _kind(op):
    """Return `Map.kind` of the map that a graph op creates, or None for an op that creates no new map."""
    if op.type in ("Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative"):
        height, width = op.inputs[1].shape[:2]
        name = {"Conv2D": "", "Conv2DBackpropInput": "transposed ", "DepthwiseConv2dNative": "depthwise "}
        return f"{height}x{width} {name[op.type]}convolution"
    if op.type == "ConcatV2":
        *parts, _ = (each.name for each in op.inputs)
        # ops.maxpool_up concatenates copies of one map; a later DepthToSpace op creates the new map
        return "concatenation" if len(set(parts)) > 1 else None
    return {
        "Placeholder": "input",
        "MaxPool": "max-pooling",
        "DepthToSpace": "up-sampling",
        "ResizeNearestNeighbor": "up-sampling",
        "ResizeBilinear": "up-sampling",
    }.get(op.type)


def _sources(op, maps):
    """Return a list of the `Map`s from which a graph op is computed, directly or through ops without a `Map`.

    maps: name of an op -> the `Map` that the op creates, for all earlier ops.
    """
    found = []
    for tensor in op.inputs:
        # tf.custom_gradient adds an IdentityN op. Its inputs are the results of the decorated function,
        # followed by the arguments of this function.
        while tensor.op.type == "IdentityN":
            tensor = tensor.op.inputs[tensor.value_index]
        nearest = [maps[tensor.op.name]] if tensor.op.name in maps else _sources(tensor.op, maps)
        found += [each for each in nearest if each not in found]
    return found


def svg(maps):
    """Return the diagram of a list of `Map`s as SVG text, and store the position of each box in its `Map`.

    Boxes are placed from left to right in the order of computation. The boxes of maps with the same height
    and width form a row.
    """
    boxes = [each for each in maps if each.kind not in ARROWS]
    sides = sorted({each.side for each in boxes}, reverse=True)
    heights = {side: 30 + 74 * (side[0] / sides[0][0]) ** 0.6 for side in sides}
    bottoms = {
        side: sum(list(heights.values())[: row + 1]) + 34 * (row + 1) for row, side in enumerate(sides)
    }
    colours = dict(zip(dict.fromkeys(each.kind for each in boxes), itertools.cycle(COLOURS)))
    right = MARGIN
    for each in boxes:
        each.left, each.width, each.bottom = right, 6 + each.channels // 12, bottoms[each.side]
        each.middle = each.bottom - heights[each.side] / 2
        right += each.width + STEP
    parts = [_text(MARGIN / 2, bottoms[side] - heights[side] / 2, f"{side[0]}x{side[1]}") for side in sides]
    parts += [line for each in boxes for source in each.sources for line in _arrows(source, each)]
    for each in boxes:
        top = 2 * each.middle - each.bottom
        parts.append(_rectangle(each.left, top, each.width, each.bottom - top, colours[each.kind]))
        parts.append(_text(each.left + each.width / 2, top - 4, each.channels))
    line = max(bottoms.values()) + 30
    used = {each.kind for each in maps} | {"skip connection"}
    arrows = {kind: colour for kind, colour in ARROWS.items() if kind in used}
    legend = colours | arrows
    for index, (kind, colour) in enumerate(legend.items()):
        x, y = MARGIN + 210 * (index % 4), line + 20 * (index // 4)
        thickness = 3 if kind in ARROWS else 12
        parts.append(_rectangle(x, y - 4 - thickness / 2, 12, thickness, colour))
        parts.append(_text(x + 18, y, kind, "start"))
    width, height = max(right, MARGIN + 210 * min(4, len(legend))), line - 4 + 20 * -(-len(legend) // 4)
    size = f'viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="11"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', background, *parts, "</svg>"]
    return "".join(f"{each}\n" for each in lines)


def _arrows(source, each, kind=None):
    """Return the SVG lines from the map `source` to the map `each`, which is computed from `source`.

    The results of max-pooling and up-sampling have no boxes. If `source` is such a result, lines begin at the
    boxes from which `source` is computed, and have the colour of the operation. kind: as for `_arrow`.
    """
    if source.kind in ARROWS:
        return [line for origin in source.sources for line in _arrows(origin, each, source.kind)]
    return [_arrow(source, each, kind)]


def _arrow(source, each, kind):
    """Return the SVG line from the box of `source` to the box of `each`.

    kind: the key in ARROWS that gives the colour. If kind is None, the line is grey, or has the colour of
    skip connections if it joins two boxes of one row and another box lies between them horizontally.
    """
    x1, x2, y1, y2 = source.left + source.width, each.left, source.middle, each.middle
    if not kind and y1 == y2 and x2 - x1 > STEP:
        kind, y1, y2 = "skip connection", y1 - 12, y2 - 12
    colour = ARROWS.get(kind, "#999999")
    return f'<path d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}" stroke="{colour}" stroke-width="1.5"/>'


def _rectangle(x, y, width, height, colour):
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{colour}"/>'


def _text(x, y, text, anchor="middle"):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'


def define_flags(values):
    """Define the flags that choose the network and the output file."""
    flags.DEFINE_string(
        "experiment", "cityscape_road", "Name of the experiment whose network is drawn.", flag_values=values
    )
    size = "Height and width of the images in pixels; by default the size in the training."
    flags.DEFINE_integer("size", None, size, 1, 2**14, flag_values=values)
    flags.DEFINE_string("output", "network.svg", "Path of the SVG file to write.", flag_values=values)


def run(flags):
    """Draw the network of an experiment to a file; return 0.

    Raises InputError for an unknown experiment, and if `summary.image_side` does.
    """
    experiment, own_flags = summary.default_experiment(flags.experiment)
    weights = experiment.init_weights(seed=0)
    side = summary.image_side(flags.size, experiment, own_flags, weights)
    maps = feature_maps(experiment.forward, weights, side)
    files.write_text(Path(flags.output), svg(maps))
    print(flags.output)
    return 0


if __name__ == "__main__":
    cli.main(define_flags, run)
