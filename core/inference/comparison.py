"""Compare runs: their flags, code and metrics, and their results on common validation images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.data import cache
from core.experiment import Experiment
from core.inference import per_image, restore, uncertainty
from core.inference.evaluate import make_evaluate
from core.metrics import is_metric
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import cli
from core.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """A run to compare.

    label:       a short text that names the run in printed tables, such as "1".
    folder:      the run folder.
    module_of:   a function that returns the module of an experiment, given the name of the experiment.
    experiment:  the `Experiment` that the run trained.
    settings:    flag name -> value, for the flags that affect the result of a training.
    code:        file path -> digest of the file, for the code that last trained the run. The dict is empty
                 if this code is unknown.
    codes:       a digest of each version of the code that trained the run, in the order of training.
    images:      checksums of the run's training and validation images and masks, as text; "unknown" without
                 best.npz.
    history:     the rows of metrics.csv: one dict (column -> float) per epoch.
    best:        the row of `history` for the epoch of the checkpoint best.npz. If best.npz is missing, `best`
                 is the last row of `history`.
    """

    label: str
    folder: Path
    module_of: Callable
    experiment: Experiment
    settings: dict
    code: dict
    codes: tuple
    images: str
    history: list
    best: dict

    @property
    def final(self):
        """The last row of `history`: the metrics after the last epoch."""
        return self.history[-1]


def load(folder, label, module_of):
    """Load a run folder as a `Run`.

    folder: the path of the run folder. label, module_of: the values of these fields of the `Run`.
    Raises InputError if the folder is not a run folder, if the run has not finished an epoch, or if
    flags.cfg, metrics.csv or best.npz is damaged.
    """
    module = module_of(run_folder.experiment_name(folder))
    values = run_folder.read_flags(folder, module.define_flags, without=("data_dir",))
    history, items = run_folder.read_metrics(folder), code_digest.read(folder)
    best = folder / "checkpoints" / "best.npz"
    state = checkpoint.load(best)[1] if best.exists() else {"epoch": len(history), "data": []}
    return Run(
        label=label,
        folder=folder,
        module_of=module_of,
        experiment=module.experiment(values),
        settings=run_folder.result_flags(module.define_flags, values),
        code=items[-1]["files"] if items else {},
        codes=tuple(dict.fromkeys(code_digest.combined(item["files"]) for item in items)),
        images=checkpoint.image_checksums(state) or "unknown",
        history=history,
        best=history[min(state["epoch"], len(history)) - 1],
    )


def differences(runs):
    """Return the flags and the images that differ between runs: a dict, --NAME or "images" -> list of texts.

    Each list has one text per run, in the order of the runs. For a flag, the text is its value in
    `Run.settings`, or "-" if the run does not have the flag. For "images", the text is `Run.images`. runs: a
    list of `Run`s.
    """
    names = sorted({name for run in runs for name in run.settings})
    rows = {f"--{name}": [str(run.settings.get(name, "-")) for run in runs] for name in names}
    rows["images"] = [run.images for run in runs]
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def grouped(runs):
    """Group the runs that differ only in --seed. Return a list of groups; each group is a list of runs.

    Two runs are in the same group if four things are equal: the experiment, the images, the code, and all
    `settings` except --seed. Code or images that are unknown for both runs count as equal. runs: a list of
    `Run`s.
    """
    groups = {}
    for run in runs:
        settings = {name: str(value) for name, value in run.settings.items() if name != "seed"}
        key = run.experiment.name, run.images, run.codes, *settings.items()
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def bootstrap(a, b, resamples):
    """Compare the loss and the metrics of two runs on their common validation images.

    An image is common if both runs were validated on an image with the same pixels. Images of a run with the
    same pixels count as one image. The metrics are the metrics that the experiment computes from a confusion
    matrix and that `metrics.is_metric` accepts. Metrics that are NaN are left out. The loss is left out if
    the loss functions may differ (`_same_loss`).
    a, b: the `Run`s. resamples: the number of bootstrap samples of the files of the common
    images.
    Returns (differences, images, files). images: the number of common images. files: the number of files
    that the common images come from. differences: a dict, "loss" or the name of a metric -> (value of b -
    value of a, lower end, upper end of the 95 % interval), from `uncertainty.paired_bootstrap`.
    Raises InputError if the runs have different classes, or if `validation_results` or `_common_rows` does.
    """
    if a.experiment.classes != b.experiment.classes:
        raise InputError("the runs have different classes; compare runs of one experiment.")
    results = [validation_results(run) for run in (a, b)]
    rows = _common_rows(*results)
    files, classes, count = results[0].files[rows[0]], len(a.experiment.classes), len(rows[0])
    # One array per run, with one row per image: the flattened confusion matrix, the loss, and 1. If rows are
    # added, the last element of the sum is the number of images.
    arrays = [
        np.column_stack([each.confusion[images].reshape(count, -1), each.loss[images], np.ones(count)])
        for each, images in zip(results, rows)
    ]

    def statistic(sums):
        """Return the mean loss and the metrics over some images, as a dict: name -> value.

        sums: float64 array, the sum over these images of [*flattened confusion matrix, loss, 1].
        """
        confusion = sums[:-2].reshape(classes, classes)
        metrics = a.experiment.metrics(confusion)
        return {"loss": sums[-2] / sums[-1]} | {
            name: value for name, value in metrics.items() if is_metric(f"val_{name}")
        }

    found = uncertainty.paired_bootstrap(statistic, *arrays, files, resamples=resamples)
    if not _same_loss(a, b):
        found.pop("loss", None)
    return found, count, len(np.unique(files))


def comparable(column, a, b):
    """True if a column of metrics.csv means the same in two runs. a, b: the `Run`s.

    The losses depend on the loss function, and the training loss also on --dice. An experiment's `measures`
    may depend on the batch size and on the number of replicas, which --strategy affects.
    """

    def same(*flags):
        return all(a.settings.get(flag) == b.settings.get(flag) for flag in flags)

    if column == "train_loss":
        return _same_loss(a, b) and same("dice")
    if column == "val_loss":
        return _same_loss(a, b)
    return column.removeprefix("val_") not in a.experiment.measures or same("batch_size", "strategy")


def _same_loss(a, b):
    """True if two runs were trained with the same loss function. a, b: the `Run`s.

    The result is False if the present loss functions of the two experiments come from different modules, or
    have different code, default arguments or bound arguments, such as class weights. It is also False if one
    of the functions is a closure, because the variables of closures are not compared. It is also False if the
    digests that both runs recorded for one of these files differ: core/losses.py, the experiment's script,
    the module that defines the loss function. A file without a digest in one of the two runs is not compared.
    """
    functions = [getattr(run.experiment.loss, "func", run.experiment.loss) for run in (a, b)]
    if any(getattr(function, "__closure__", None) for function in functions):
        return False
    sources = {f"{getattr(function, '__module__', '').replace('.', '/')}.py" for function in functions}
    sources |= {"core/losses.py", *(f"experiments/{run.experiment.name}.py" for run in (a, b))}
    both = a.code.keys() & b.code.keys()
    changed = {path.partition(":")[0] for path in code_digest.changed_files(a.code, b.code)} & both
    return _loss_code(a.experiment.loss) == _loss_code(b.experiment.loss) and not changed & sources


def _loss_code(loss):
    """Return the module and the code of a loss function and, as text, its default and bound arguments.

    Functions of two modules may have equal code, but read different constants of their modules.
    """
    function = getattr(loss, "func", loss)
    arguments = [getattr(function, name, None) for name in ("__defaults__", "__kwdefaults__")]
    arguments += [getattr(loss, "args", ()), getattr(loss, "keywords", {})]
    return getattr(function, "__module__", ""), getattr(function, "__code__", function), repr(arguments)


def _common_rows(a, b):
    """Return the indices of the common images in the results a and in the results b, int64 [N] each.

    a, b: the `per_image.PerImage`s of the runs. Raises InputError if there is no common image, if all common
    images come from a single file, or if the masks of a common image have different numbers of pixels per
    class.
    """
    _, *rows = np.intersect1d(a.hashes, b.hashes, return_indices=True)
    if not len(rows[0]):
        raise InputError(
            "the runs have no validation image with the same pixels and size in common; compare runs that"
            " were trained with the same data and image size."
        )
    if len(np.unique(a.files[rows[0]])) == 1:
        raise InputError(
            "the common validation images come from a single file; compare runs that were validated on"
            " several common files."
        )
    # The sum of a row of the confusion matrix is the number of pixels of a true class. This number depends
    # only on the mask, so different sums mean different masks.
    if (a.confusion[rows[0]].sum(2) != b.confusion[rows[1]].sum(2)).any():
        raise InputError(
            "the runs have different masks for the same validation images; compare runs that were trained"
            " with the same masks."
        )
    return rows


def validation_results(run):
    """Return the results on each validation image after a run's last epoch: a `per_image.PerImage`.

    The results are read from the run's val_images.npz. If this file is missing or belongs to an earlier
    epoch, the results are computed now, with the checkpoint last.npz and the current code. In this case,
    raises InputError if the code that last trained the run is unknown, or differs from the current code, or
    if last.npz is not from the end of the last epoch. Also raises InputError if a file that is read is
    damaged.
    """
    saved = per_image.load(run.folder)
    if saved and saved.epoch == len(run.history):
        return saved
    if not run.code or code_digest.changed_files(run.code, code_digest.current(run.experiment)):
        raise InputError(
            f"{run.folder} has no {per_image.NAME} of its last epoch, and this file can be computed only"
            " with the code that trained the run, which is unknown or has changed; restore that code and run"
            " this command again."
        )
    state = checkpoint.load(run.folder / "checkpoints" / "last.npz")[1]
    if (state["epoch"], state["step"]) != (len(run.history), 0):
        raise InputError(
            f"{run.folder}: last.npz is not from the end of the last epoch in metrics.csv; continue the"
            " training, and run this command again."
        )
    values = cli.parse(restore.define_flags, [f"--run_dir={run.folder}", "--checkpoint=last"])
    restored = restore.restore(values, run.module_of, data=True)
    examples = cache.load_split(restored.experiment.dataset, restored.flags, "val")
    evaluate = make_evaluate(restored.experiment, restored.weights, restored.dtype)
    return per_image.evaluate(evaluate, examples, examples.rows, len(run.history))
