"""Print shapes, parameters, GFLOP and receptive fields of a network's operations; --time adds their cost.

Each line of the table describes an operation: one call of a function of `core.ops`, together with the
TensorFlow ops that follow the call in the model. The ops before the first call form an operation of their
own. All numbers are computed from the graph that TensorFlow traces, so they change if you edit an op or a
model.

parameters:       the number of elements of the operation's weights. Weights that several operations share are
                  in the row of each of them, but once in the total. The total includes unused weights.
GFLOP:            10^9 floating-point operations to predict one image. Only the multiply-adds of
                  convolutions and matrix products are counted, and each counts as two operations. All
                  branches of tf.cond are counted, and the body of a loop is counted once.
receptive field:  the height or width, whichever is larger, of the area of the image that one pixel of the
                  operation's output depends on, in pixels. If the area differs between output pixels, the
                  largest one is shown. A dash stands for more than about 2,048 pixels, for an output that is
                  not a feature map, and for an output that does not change when a line of the image changes.
                  If the network accepts images whose height or width is not divisible by its strides, all
                  rows have a dash.

With --time, a second table shows the cost of each operation in a training step, without the optimizer, on
this machine's CPU. The cost is the number of milliseconds that the operation's TensorFlow ops take, and the
number of MiB that these ops allocate. The forward and the backward pass have separate columns. Lowering
replaces some convolutions by faster computations with the same result up to rounding. The columns "off" show
the costs without lowering, and the columns "auto" show the costs with lowering. If lowering merges an
operation into another operation, the cells of the merged operation in the columns "auto" are empty.

Run: python -m experiments.summary --experiment=cityscape_road
     python -m experiments.summary --run_dir=runs/cityscape_road --time --batch_size=8
"""

import tempfile
from pathlib import Path

import tensorflow as tf
from absl import flags

from core import lowering
from core.inference import tiling
from core.runs import run_folder
from core.runtime import cli, device
from core.runtime.errors import InputError
from core.weights import count
from experiments import article
from experiments.benchmark import op_times, operations, receptive_fields


def define_flags(values):
    """Define the flags that choose the network, the image size and the measurement."""
    own = {"flag_values": values}
    experiment = "Name of an experiment whose network to describe, such as cityscape_road."
    flags.DEFINE_string("experiment", None, experiment, **own)
    run_dir = "Folder of a run whose network to describe, instead of --experiment."
    flags.DEFINE_string("run_dir", None, run_dir, **own)
    size = "Height and width of the images in pixels; by default the size in the training."
    flags.DEFINE_integer("size", None, size, 1, 2**14, **own)
    time = "Measure the time and memory of each operation in training steps, on CPUs only."
    flags.DEFINE_bool("time", False, time, **own)
    flags.DEFINE_integer("batch_size", 16, "With --time: number of images per step.", 1, 10**9, **own)
    steps = "With --time: number of profiled steps; the table shows each operation's smallest cost."
    flags.DEFINE_integer("steps", 5, steps, 1, 10**9, **own)
    precision = "With --time: dtype of the activations; by default the dtype of the experiment or run."
    flags.DEFINE_enum("precision", None, ["float32", "bfloat16"], precision, **own)


def run(flags):
    """Print the tables of a network; return 0.

    Raises InputError if --experiment and --run_dir are both given or both missing, if --size is missing and
    the experiment's flags do not define the size, if the network cannot process images of the size, and if
    --time is given on a machine with a GPU.
    """
    if flags.time and tf.config.list_physical_devices("GPU"):
        raise InputError("--time: measures CPUs only; hide the GPUs with CUDA_VISIBLE_DEVICES=-1.")
    experiment, own_flags = _experiment(flags)
    weights = experiment.init_weights(seed=own_flags.seed)
    side = image_side(flags.size, experiment, own_flags, weights)
    with lowering.disabled():
        found = operations.of_network(experiment.forward, weights, [1, side, side, 3])
    fields = receptive_fields.sides(experiment.forward, weights)
    print(f"{experiment.name}, images of {side}x{side} pixels")
    print("\n".join(table(found, fields, count(weights))))
    if flags.time:
        precision = flags.precision or own_flags.precision
        print(f"\nper step of {flags.batch_size} images, {precision} on {device.set_up(own_flags)}")
        images = 255 * tf.random.stateless_uniform([flags.batch_size, side, side, 3], [0, 0])
        costs, rules = op_times.measure(experiment, weights, tf.cast(images, precision), steps=flags.steps)
        with lowering.disabled():
            trained = operations.of_network(experiment.forward, weights, images.shape, training=True)
        print("\n".join(cost_table(trained, costs)))
        print(f"lowering: {lowering.described(rules)}")
    return 0


def _experiment(flags):
    """Return (experiment, own_flags): an `Experiment`, and the `flags.FlagValues` that define it.

    With --experiment, the flags have their default values. With --run_dir, the flags are read from the run
    folder. Raises InputError if --experiment and --run_dir are both given or both missing.
    """
    if bool(flags.experiment) == bool(flags.run_dir):
        raise InputError("--experiment, --run_dir: give one of them, such as --experiment=cityscape_road.")
    if flags.experiment:
        return default_experiment(flags.experiment)
    module = article(run_folder.experiment_name(Path(flags.run_dir)))
    own_flags = run_folder.read_flags(Path(flags.run_dir), module.define_flags, without=("data_dir",))
    return module.experiment(own_flags), own_flags


def default_experiment(name):
    """Return (experiment, own_flags): an `Experiment` whose flags have their default values, and these flags.

    name: the name of the experiment. Only --run_dir has another value: an empty folder, which is then
    deleted. With the default --run_dir, `own_images` would read the classes of an existing run.
    Raises InputError for an unknown experiment.
    """
    module = article(name)
    with tempfile.TemporaryDirectory() as folder:
        own_flags = cli.parse(module.define_flags, [f"--run_dir={folder}"])
        return module.experiment(own_flags), own_flags


def image_side(size, experiment, own_flags, weights):
    """Return the side, in pixels, of the square images for which a command describes a network.

    size: the value of --size. If it is None, the side is the side of the resized photos or of the patches
    that the experiment trains on. own_flags: the flags that define the experiment. weights: the network's
    weights. Raises InputError if the side is unknown, or if the network cannot process images of this side.
    """
    side = size or experiment.dataset.size or ("patch_size" in own_flags and own_flags["patch_size"].value)
    if not side:
        raise InputError("--size: give the side of the images, which the experiment's flags do not define.")
    multiple = tiling.multiple(experiment.forward, weights)
    if side % multiple:
        raise InputError(f"--size={side}: must be a multiple of {multiple} for this network.")
    return side


def table(found, fields, parameters):
    """Return the table of a network's operations as a list of lines of text.

    found: list of `operations.Operation`. fields: `Operation.index` -> side of the receptive field in pixels,
    or None. parameters: the number of parameters of the whole network.
    """
    head = ("operation", "weights", "output", "parameters", "GFLOP", "receptive field")
    rows = [
        (
            each.name,
            _common_name(each.weights),
            " x ".join(str(size) for size in each.output.shape[1:]),
            f"{each.parameters:,}" if each.parameters else "",
            f"{2e-9 * each.multiply_adds:.4f}" if each.multiply_adds else "",
            str(fields.get(each.index) or "-"),
        )
        for each in found
    ]
    gflop = 2e-9 * sum(each.multiply_adds for each in found)
    return _aligned([head, *rows, ("total", "", "", f"{parameters:,}", f"{gflop:.4f}", "")], left=2)


def _common_name(names):
    """Return a text for the names of variables: the name of their common layer, or all names.

    The text is the layer's name, such as "up0/norm", if there are several names and all belong to one layer.
    Otherwise the text is the list of the names, separated by commas.
    """
    layers = {name.rpartition("/")[0] for name in names}
    return layers.pop() if len(names) > 1 and len(layers) == 1 else ", ".join(names)


def cost_table(found, costs):
    """Return the table of the costs of a training step as a list of lines of text.

    Each operation has a row. Each pair of a pass (forward or backward) and a lowering mode has a column of
    milliseconds and a column of MiB. found: list of `operations.Operation`. costs: the first
    result of `op_times.measure`.
    """
    columns = [(direction, mode) for direction in op_times.PASSES for mode in costs]
    titles = [f"{direction} {unit}" for unit in ("ms", "MiB") for direction in op_times.PASSES]
    top = ("", "", *[cell for title in titles for cell in (title, *[""] * (len(costs) - 1))])
    rows = [top, ("operation", "weights", *[mode for _, mode in 2 * columns])]

    def add_row(name, weights, calls):
        """Append a row of texts to `rows`: name, weights, and the sums of the costs of `calls`.

        calls: iterable. Each item is the index of an operation, or `op_times.REST` for the ops that belong to
        no operation.
        """
        cells = [[costs[mode][direction, call] for call in calls] for direction, mode in columns]
        milliseconds = [sum(cost.milliseconds for cost in cell) for cell in cells]
        mebibytes = [sum(cost.allocated for cost in cell) / 2**20 for cell in cells]
        numbers = (f"{each:.1f}" if each else "" for each in (*milliseconds, *mebibytes))
        rows.append((name, weights, *numbers))

    for each in found:
        add_row(each.name, _common_name(each.weights), [each.index])
    listed = [each.index for each in found]
    # calls inside of a branch of tf.cond have costs, but no row of their own
    others = {call for each in costs.values() for _, call in each} - set(listed) | {op_times.REST}
    add_row("loss and other ops", "", others)
    add_row("total", "", [*listed, *others])
    return _aligned(rows, left=2)


def _aligned(rows, *, left):
    """Return rows of texts as a list of lines with aligned columns.

    left: the number of columns, from the first one on, that are aligned to the left. The columns after them
    are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            f"{cell:<{width}}" if index < left else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    cli.main(define_flags, run)
