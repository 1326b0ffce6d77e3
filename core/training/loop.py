"""The training loop, shared by all experiments; it can be resumed exactly at any step.

Each step depends on the variables and the `State`, which are in the checkpoint, and on
(seed, epoch, step), which determine the order of the images and all random choices. A
process that is killed at any moment can be continued with the result of an uninterrupted run.
"""

import contextlib
import dataclasses
import math
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from core import lowering
from core.data import augment, batches, membership, resident
from core.inference import per_image, render
from core.inference.evaluate import make_evaluate, make_predict
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import device, distribution, precision, progress
from core.runtime.errors import InputError, warn_on_failure
from core.training import checks, history, setup, signals, tensorboard
from core.training.step import make_train_step, recipe_from_flags
from core.weights import count

LOSS_SYNC_SECONDS = 0.5  # interval between fetches of the losses from the device
MIN_LOSS = -0.001  # the run ends if a loss is smaller; losses are at least 0, apart from rounding
# the run ends if a loss, in nats per pixel, is larger; uniform guesses over 34 classes give 3.5
MAX_LOSS = 100.0
PICTURES = 6  # number of validation images in the picture of each epoch


def run(experiment, define_flags, flags):
    """Train an experiment in its run folder, from the start or from its last checkpoint.

    Returns the process' exit code: 0, or 130 or 143 if SIGINT or SIGTERM ended the
    training after its state was saved. Raises InputError for mistakes that the user can correct.
    """
    folder = Path(flags.run_dir)
    device_name = device.set_up(flags)
    lowering.configure(flags.lowering)
    with distribution.strategy(flags.strategy).scope(), distribution.lost_workers_named():
        if distribution.workers() > 1:
            device_name = f"{distribution.workers()} workers with {device_name}"
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if flags.batch_size % replicas:
            raise InputError(
                f"--batch_size={flags.batch_size}: must be a multiple of the {replicas} replicas."
            )
        if flags.precision == precision.AUTO:
            flags.precision = setup.choose_precision(folder)
        claim = run_folder.claim(folder, experiment.name, define_flags, flags)
        with claim if distribution.is_chief() else contextlib.nullcontext():
            result_flags = repr(run_folder.result_flags(define_flags, flags))
            distribution.check_alike([zlib.crc32(result_flags.encode())])
            training = Training(experiment, flags, folder, device_name)
            return training.run()


class Training:
    """A run in this process: variables, data, compiled functions and progress.

    weights, slots, averages: dicts of `tf.Variable` by name; variables: all three dicts in one.
    state:      `State`, the progress.
    train, val: `core.data.cache.Examples`.
    pending:    (number of examples, loss) of the steps that are not in the state yet.
    """

    def __init__(self, experiment, flags, folder, device_name):
        """Make the variables, from the last checkpoint if there is one, and load the images.

        Raises InputError if experiment, checkpoint, images and flags do not fit.
        """
        self.experiment, self.flags, self.folder = experiment, flags, folder
        self.device_name = device_name
        self.is_chief = distribution.is_chief()
        self.dtype = tf.dtypes.as_dtype(flags.precision)
        self.pending, self.signals, self.writer = [], [], None
        self.lowered = None  # lowering rules in the graph of a step: rule -> count, once it is traced
        self.weights, self.slots, self.averages, self.state = setup.make_variables(experiment, flags, folder)
        self.variables = self.weights | self.slots | self.averages
        print(
            f"{experiment.name}: {count(self.weights):,} parameters, {flags.precision} on {self.device_name}"
        )
        self.train, self.val = setup.load_images(experiment.dataset, flags, folder, self.state)
        self.steps = math.ceil(len(self.train) / flags.batch_size)  # of an epoch
        checks.check_masks(experiment, self.train, self.val)
        checks.warn_of_shared_photos(self.train, self.val)
        self.best_metric = checks.best_metric(experiment, self.val)
        self.started = time.monotonic() - self.state.seconds
        self.make_functions()

    def make_functions(self):
        """Create the functions for steps, validation and pictures; each is traced at its first call."""
        experiment, flags = self.experiment, self.flags
        recipe = recipe_from_flags(flags, flags.epochs * self.steps)
        self.train_step = make_train_step(
            experiment, self.weights, self.slots, self.averages, self.dtype, recipe
        )
        predicting = checkpoint.prediction_variables(self.variables)
        self.evaluate = make_evaluate(experiment, predicting, self.dtype)
        self.predict = make_predict(experiment, predicting, self.dtype)

    def is_finished(self):
        """True if all epochs are done, or if early stopping ended the run."""
        patience = self.flags.early_stopping_patience
        return self.state.epoch == self.flags.epochs or history.stalled(self.state.history, patience)

    def run(self):
        """Train to the end of the run or until a signal, and write the results; return the exit code."""
        if self.is_chief:
            membership.write(self.folder, self.train, self.val)
        if self.flags.tensorboard and self.is_chief:
            self.writer = tensorboard.writer(self.folder)
        self.repeat_interrupted_writes()
        if self.is_finished():
            early = self.state.epoch < self.flags.epochs
            way = "early, by --early_stopping_patience" if early else "more --epochs continue it"
            print(f"this run is finished ({way}); use another --run_dir to start a new run")
            self.report()
            return 0
        print(f"{len(self.train)} training and {len(self.val)} validation images from {self.train.data_dir}")
        self.make_batches = self.batches_maker()
        state = self.state
        if state.history or state.step:
            print(f"continuing after {state.epoch} epochs and {state.step} steps")
            self.warn_of_other_lowering()
        code_digest.record(
            self.folder, self.experiment, epoch=state.epoch, step=state.step, write=self.is_chief
        )
        # not earlier, because a killed preparation can be continued
        with signals.catch_signals() as self.signals:
            try:
                while not self.is_finished():
                    self.train_epoch()
                    self.finish_epoch()
            except signals.Stopped:
                self.save()
                print(f"stopped and saved; the same command continues {self.folder}")
                # the list is empty if another worker received the signal
                return 128 + (self.signals or [signal.SIGTERM])[0]
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:  # for `experiments.compare`
            per_image.save(self.folder, per_image.evaluate(self.evaluate, self.val, self.state.epoch))
        self.report()
        return 0

    def repeat_interrupted_writes(self):
        """Write the best checkpoint and the last epoch's picture if an earlier process was killed before."""
        if self.is_chief and self.state.history and self.state.step == 0:
            self.keep_best()
            if not self.picture_path(self.state.epoch).exists():
                self.draw(self.state.history[-1])

    def warn_of_other_lowering(self):
        """Print a warning if the run was begun with another --lowering, because rounding will differ."""
        begun = run_folder.recorded_flag(self.folder, "lowering") or self.flags.lowering
        if begun != self.flags.lowering:
            print(
                f"warning: this run began with --lowering={begun}: from here on it is no longer"
                " bit-identical to an uninterrupted run."
            )

    def batches_maker(self):
        """Return a function (epoch, first_step) -> the batches of an epoch from a step on."""
        flags = self.flags
        changes = [*self.experiment.augment, *(augment.BY_NAME[name] for name in flags.augment)]
        if flags.data_on_device:
            return resident.make_training(self.train, flags.batch_size, seed=flags.seed, changes=changes)

        def make_batches(epoch, first_step):
            options = {"seed": flags.seed, "epoch": epoch, "first_step": first_step, "changes": changes}
            return self.distributed(batches.training, self.train, **options)

        return make_batches

    def distributed(self, make_batches, examples, **options):
        """Return the batches of a function of `core.data.batches`, distributed to the replicas."""
        return tf.distribute.get_strategy().distribute_datasets_from_function(
            lambda context: make_batches(examples, self.flags.batch_size, context=context, **options)
        )

    def train_epoch(self):
        """Train for the rest of the current epoch, and show the progress."""
        bar = progress.Progress(self.steps, "step", done=self.state.step)
        try:
            self.make_steps(bar)
        finally:
            bar.close()

    def make_steps(self, bar):
        """Run the remaining steps of the epoch; show the progress and save checkpoints at intervals."""
        saved = synced = time.monotonic()
        for batch in signals.stop_when(self.must_stop, self.make_batches(self.state.epoch, self.state.step)):
            seed = tf.constant([self.flags.seed, self.state.epoch * self.steps + self.state.step], tf.int64)
            examples = min(self.flags.batch_size, len(self.train) - self.state.step * self.flags.batch_size)
            self.pending.append((examples, self.make_step(*batch, seed)))
            self.state.step += 1
            if time.monotonic() - synced > LOSS_SYNC_SECONDS or self.state.step == self.steps:
                self.add_losses()
                self.state.step_seconds += time.monotonic() - synced
                self.show_progress(bar)
                if time.monotonic() - saved > 60 * self.flags.checkpoint_every:
                    self.save()
                    saved = time.monotonic()
                synced = time.monotonic()

    def make_step(self, *batch):
        """Run one step and return its loss; in the first call, print which lowering rules its graph uses."""
        before = lowering.applied()
        loss = self.train_step(*batch)
        if self.lowered is None:
            self.lowered = dict(lowering.applied() - before)
            print(f"lowering: {lowering.described(self.lowered)}")
        return loss

    def must_stop(self):
        """True if a worker received a signal; all workers then stop at the same step."""
        return distribution.gathered([len(self.signals)]).any()

    def add_losses(self):
        """Add the losses of the last steps to the state. Raises InputError if one is out of bounds."""
        for examples, loss in self.pending:
            value = float(loss)
            if value < MIN_LOSS:
                raise InputError(
                    f"the loss is {value:.3g} at or before step {self.state.step} of epoch"
                    f" {self.state.epoch + 1}, but a loss must not be below 0: correct the loss function or"
                    " the masks. The checkpoints were saved before this step."
                )
            if not value < MAX_LOSS:  # also if it is NaN
                raise self.diverged(f"the loss ({value:.3g})")
            self.state.loss_sum += value * examples
        self.pending.clear()

    def show_progress(self, bar):
        """Update the progress line with the mean loss and throughput of the epoch."""
        seen = min(self.state.step * self.flags.batch_size, len(self.train))
        rate = seen / self.state.step_seconds
        bar.update(self.state.step, [("loss", self.state.loss_sum / seen), ("images/s", rate)])

    def finish_epoch(self):
        """Validate, then write the epoch to the checkpoint, to metrics.csv and as a picture."""
        val_batches = self.distributed(batches.evaluation, self.val)
        count = math.ceil(len(self.val) / self.flags.batch_size)
        val_batches = progress.track(val_batches, count, "validation step")
        means, confusion = self.evaluate(signals.stop_when(self.must_stop, val_batches))
        row = self.row({**means, **self.experiment.metrics(confusion)})
        self.state.history.append(row)
        self.state.epoch, self.state.step = row["epoch"], 0
        self.state.loss_sum = self.state.step_seconds = 0.0
        self.save()
        if self.is_chief:
            self.keep_best()
            run_folder.write_metrics(self.folder, self.state.history)
            self.draw(row)
        print(f"epoch {row['epoch']}/{self.flags.epochs}: {history.line(row)}")

    def row(self, metrics):
        """Return the history's row for the epoch that has just been validated."""
        return {
            "epoch": self.state.epoch + 1,
            "step": (self.state.epoch + 1) * self.steps,
            "train_loss": self.state.loss_sum / len(self.train),
            **{f"val_{name}": float(value) for name, value in metrics.items()},
            "images_per_second": len(self.train) / self.state.step_seconds,
            "seconds": time.monotonic() - self.started,
        }

    def draw(self, row):
        """Write the picture of an epoch's predictions, and its row to TensorBoard.

        A failure only causes a warning, because the epoch is saved already.
        """
        path = self.picture_path(row["epoch"])
        with warn_on_failure(f"the picture {path}"):
            shown = self.val.rows[np.unique(np.linspace(0, len(self.val) - 1, PICTURES).astype(int))]
            panel = render.examples_panel(self.val, shown, self.predict, self.experiment.palette)
            run_folder.write_picture(path, panel)
            if self.writer:
                tensorboard.write(self.writer, row, panel)

    def picture_path(self, epoch):
        return self.folder / "predictions" / f"epoch_{epoch:03}.png"

    def save(self):
        """Write a checkpoint of all variables and the state. Raises InputError for NaN or infinity."""
        self.add_losses()
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise self.diverged("a weight")
        self.state.seconds = time.monotonic() - self.started
        if self.is_chief:
            checkpoint.save(self.folder / "checkpoints", arrays, dataclasses.asdict(self.state))

    def keep_best(self):
        """Copy the last checkpoint to the best one if its epoch is the best so far."""
        if history.best(self.state.history, self.best_metric) is self.state.history[-1]:
            checkpoint.keep(self.folder / "checkpoints", "best")

    def diverged(self, what):
        """Return the InputError for a loss or weight that is not finite or too large."""
        return InputError(
            f"{what} is not finite or far too large at or before step {self.state.step} of epoch"
            f" {self.state.epoch + 1}: the training diverged. The checkpoints were saved before this step;"
            " begin a new --run_dir with a smaller --learning_rate, or with --clip_norm=1."
        )

    def report(self):
        """Write metrics.csv, summary.json and the curves, and print the result."""
        if self.is_chief:
            facts = {
                "seconds": self.state.seconds,
                "parameters": count(self.weights),
                "device": self.device_name,
                "lowering": self.lowered or run_folder.read_summary(self.folder).get("lowering", {}),
                **({"initial_weights": self.state.initial} if self.state.initial else {}),
            }
            history.report(
                self.state.history,
                self.folder,
                self.experiment.name,
                best_metric=self.best_metric,
                **facts,
            )
