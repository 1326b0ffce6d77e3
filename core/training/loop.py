"""The training loop that all experiments share. A run that was stopped or killed can be resumed.

A checkpoint holds all variables and the `State` of the run. The order of the images and all random choices
are functions of (seed, epoch, step). A resumed run therefore repeats the steps that came after its last
checkpoint. With deterministic ops on one device, the final weights of a resumed run and of an uninterrupted
run are bit-identical.
"""

import contextlib
import dataclasses
import math
import os
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

# Time in seconds after which the next step of an epoch reads the losses from the device. The last step of an
# epoch always reads them. Each reading waits until the device has computed the steps.
LOSS_SYNC_SECONDS = 0.5
# A batch's loss below MIN_LOSS ends the run with an error. MIN_LOSS is not 0, because rounding can make a
# loss of 0 slightly negative.
MIN_LOSS = -0.001
# A batch's loss of MAX_LOSS or more ends the run with an error. For comparison, a network that predicts equal
# probabilities for 34 classes has a cross-entropy of 3.5.
MAX_LOSS = 100.0
PICTURES = 6  # number of validation images in the picture of each epoch


def run(experiment, define_flags, flags):
    """Train an experiment in the folder --run_dir, from the beginning or from the last checkpoint.

    define_flags: the function of the experiment's script that defines the script's flags. flags: the parsed
    flags. Raises InputError for mistakes that the user can correct.

    Returns the exit code of the process: 0 if the training is finished, 130 after SIGINT, 143 after SIGTERM.
    After one of these signals, the training saves a checkpoint and ends. In a distributed training, a signal
    to one worker ends all workers. The workers that did not receive the signal return 143.
    """
    folder = Path(flags.run_dir)
    device_name = device.set_up(flags)
    frozen = "freeze_encoder_norm" in flags and flags.freeze_encoder_norm
    if flags.deterministic and frozen and tf.config.list_physical_devices("GPU"):
        raise InputError(
            "--deterministic: on GPUs, TensorFlow has no deterministic gradient of a frozen batch"
            " normalisation; leave out --freeze_encoder_norm or --deterministic."
        )
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
    """A training run in this process: its variables, images, compiled functions and progress.

    weights:    the network's variables, name -> `tf.Variable`
    slots:      the optimizer's variables, see `optimizer.init_slots`
    averages:   the moving averages of the weights, see `optimizer.init_averages`; empty without --ema_decay
    variables:  weights, slots and averages in one dict
    state:      the `State`, the progress of the run
    train, val: the `core.data.cache.Examples` of the two splits
    steps:      the number of steps in an epoch
    pending:    a list of (number of examples, loss), one for each step whose loss is not yet added to `state`
    lowered:    a dict: name of a rule of `core.lowering` -> number of times that the graph of the training
                step uses the rule; None until this graph is traced
    signals:    a list with the number of the first signal that this process received during the training;
                empty if there was no signal
    writer:     the TensorBoard writer, or None
    """

    def __init__(self, experiment, flags, folder, device_name):
        """Create the variables, or restore them from the last checkpoint, and load the images.

        Raises InputError if experiment, checkpoint, images and flags do not fit together.
        """
        self.experiment, self.flags, self.folder = experiment, flags, folder
        self.device_name = device_name
        self.is_chief = distribution.is_chief()
        self.dtype = tf.dtypes.as_dtype(flags.precision)
        self.pending, self.signals, self.writer = [], [], None
        self.lowered = None
        self.weights, self.slots, self.averages, self.state = setup.make_variables(experiment, flags, folder)
        self.variables = self.weights | self.slots | self.averages
        print(
            f"{experiment.name}: {count(self.weights):,} parameters, {flags.precision} on {self.device_name}"
        )
        self.train, self.val = setup.load_images(experiment.dataset, flags, folder, self.state)
        self.steps = math.ceil(len(self.train) / flags.batch_size)
        checks.check_examples(experiment, self.train, self.val)
        checks.warn_of_shared_photos(self.train, self.val)
        self.best_metric = checks.best_metric(experiment, self.val)
        self.started = time.monotonic() - self.state.seconds
        self.make_functions()
        if self.is_chief:  # a continued run may have new values of these flags
            run_folder.record_flag(folder, "epochs", flags.epochs)
            run_folder.record_flag(folder, "cache_dir", os.path.abspath(flags.cache_dir))
            if flags.data_dir:  # the data may have moved
                run_folder.record_flag(folder, "data_dir", os.path.abspath(flags.data_dir))

    def make_functions(self):
        """Create the functions `train_step`, `evaluate` and, for pictures of predictions, `predict`.

        Each function is traced at its first call.
        """
        experiment, flags = self.experiment, self.flags
        recipe = recipe_from_flags(flags, flags.epochs * self.steps)
        self.train_step = make_train_step(
            experiment, self.weights, self.slots, self.averages, self.dtype, recipe, self.image_size()
        )
        predicting = checkpoint.prediction_variables(self.variables)
        self.evaluate = make_evaluate(experiment, predicting, self.dtype)
        self.predict = make_predict(experiment, predicting, self.dtype)

    def is_finished(self):
        """True if all epochs are finished, or if early stopping ended the run."""
        return self.ends_after(self.state.history)

    def ends_after(self, rows):
        """True if the run ends after epochs with these rows. rows: see `core.training.history`."""
        return len(rows) == self.flags.epochs or history.stalled(rows, self.flags.early_stopping_patience)

    def run(self):
        """Train until `is_finished` is true or a signal arrives; return the exit code for `loop.run`.

        Writes the results to the run folder if the training is finished.
        """
        if self.is_chief:
            membership.write(self.folder, self.train, self.val)
        if self.flags.tensorboard and self.is_chief:
            self.writer = tensorboard.writer(self.folder)
        self.repeat_interrupted_writes()
        if self.is_finished():
            way = ""
            if history.stalled(self.state.history, self.flags.early_stopping_patience):
                way = " (stopped early, by --early_stopping_patience)"
            elif self.flags.schedule == "constant":
                way = " (a larger --epochs continues it)"
            print(f"this run is finished{way}; use another --run_dir to start a new run")
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
        # Before this line, a signal may kill the process, because there is no new state to save.
        with signals.catch_signals() as self.signals:
            try:
                while not self.is_finished():
                    bar = progress.Progress(self.steps, "step", done=self.state.step)
                    with contextlib.closing(bar):
                        self.make_steps(bar)
                    self.finish_epoch()
            except signals.Stopped:
                self.save()
                print(f"stopped and saved; the same command continues {self.folder}")
                # self.signals is empty if another worker received the signal
                return 128 + (self.signals or [signal.SIGTERM])[0]
        self.report()
        return 0

    def repeat_interrupted_writes(self):
        """Write the best checkpoint, metrics.csv and, if it is missing, the picture of the last epoch.

        `finish_epoch` writes these files after it has saved the checkpoint. If the process was killed
        in between, the files are missing or lack the last epoch.
        """
        if self.is_chief and self.state.history and self.state.step == 0:
            self.keep_best()
            run_folder.write_metrics(self.folder, self.state.history)
            if not self.picture_path(self.state.epoch).exists():
                self.draw(self.state.history[-1])

    def warn_of_other_lowering(self):
        """Print a warning if the run began with a value of --lowering that differs from the present value.

        In this case, the next steps have other rounding errors than the same steps of an uninterrupted run.
        """
        begun = run_folder.recorded_flag(self.folder, "lowering") or self.flags.lowering
        if begun != self.flags.lowering:
            print(
                f"warning: this run began with --lowering={begun}: the next steps round differently, so the"
                " result is not bit-identical to an uninterrupted run."
            )

    def changes(self):
        """Return the augmentation functions: first those of the experiment, then those of --augment."""
        return [*self.experiment.augment, *(augment.BY_NAME[name] for name in self.flags.augment)]

    def image_size(self):
        """Return (height, width) of a training image after augmentation."""
        example = self.train.images[0], self.train.masks[0]
        image, _ = batches.change(*example, row=0, seed=[self.flags.seed, 0], changes=self.changes())
        return image.shape[:2]

    def batches_maker(self):
        """Return a function (epoch, first_step) -> the training batches of an epoch, from first_step on."""
        flags, changes = self.flags, self.changes()
        if flags.data_on_device:
            return resident.make_training(self.train, flags.batch_size, seed=flags.seed, changes=changes)

        return lambda epoch, first_step: self.distributed(
            batches.training, self.train, seed=flags.seed, epoch=epoch, first_step=first_step, changes=changes
        )

    def distributed(self, make_batches, examples, **options):
        """Return a distributed dataset of batches. Each batch is split among the replicas.

        make_batches: a function of `core.data.batches` that makes the batches. examples: the
        `core.data.cache.Examples` from which the batches are made. options: further arguments of
        make_batches.
        """
        return tf.distribute.get_strategy().distribute_datasets_from_function(
            lambda context: make_batches(examples, self.flags.batch_size, context=context, **options)
        )

    def make_steps(self, bar):
        """Run the remaining steps of the epoch, update the progress line and save checkpoints at intervals.

        bar: the progress line. Raises `signals.Stopped` before the next step if a worker has received SIGINT
        or SIGTERM. Raises InputError if `add_losses` or `save` does.
        """
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
        """Run one training step and return its loss, a float32 scalar.

        batch: the arguments of the function that `make_train_step` returns. The first call traces the step
        and prints which rules of `core.lowering` its graph uses.
        """
        before = lowering.applied()
        loss = self.train_step(*batch)
        if self.lowered is None:
            self.lowered = dict(lowering.applied() - before)
            self.state.trained = {
                "device": self.device_name,
                "versions": device.versions(),
                "lowering": self.lowered,
            }
            print(f"lowering: {lowering.described(self.lowered)}")
        return loss

    def must_stop(self):
        """True if any worker has received a signal. All workers get the same answer at the same step."""
        return distribution.gathered([len(self.signals)]).any()

    def add_losses(self):
        """Add the pending losses to `state.loss_sum`, and empty the list of pending losses.

        Raises InputError if a loss is NaN, below MIN_LOSS, or not below MAX_LOSS.
        """
        for examples, loss in self.pending:
            value = float(loss)
            if value < MIN_LOSS:
                raise InputError(
                    f"the loss is {value:.3g} {self.place()}, but a loss must not be negative: correct the"
                    " loss function or the masks, or add a constant to a loss that is negative by design. The"
                    " checkpoints were saved before this step."
                )
            if not value < MAX_LOSS:  # also true if the value is NaN
                raise self.diverged(f"the loss ({value:.3g})")
            self.state.loss_sum += value * examples
        self.pending.clear()

    def show_progress(self, bar):
        """Show the mean loss and the throughput of the current epoch in the progress line `bar`."""
        seen = min(self.state.step * self.flags.batch_size, len(self.train))
        rate = seen / self.state.step_seconds
        bar.update(self.state.step, [("loss", self.state.loss_sum / seen), ("images/s", rate)])

    def finish_epoch(self):
        """Validate the network, then save a checkpoint, metrics.csv and a picture of predictions.

        Raises `signals.Stopped` during the validation if a worker has received SIGINT or SIGTERM. Then the
        epoch is not finished, and the continued run validates the network from the first batch on.
        """
        steps = math.ceil(len(self.val) / self.flags.batch_size)
        val_batches = self.distributed(batches.evaluation, self.val)
        val_batches = progress.track(val_batches, steps, "validation step")
        means, confusion, _ = self.evaluate(signals.stop_when(self.must_stop, val_batches))
        row = self.row({**means, **self.experiment.metrics(confusion)})
        # After the last epoch, save the results of each single validation image, which `experiments.compare`
        # reads. Only runs with a single replica can compute these results.
        rows = [*self.state.history, row]
        if self.ends_after(rows) and tf.distribute.get_strategy().num_replicas_in_sync == 1:
            images = signals.stop_when(self.must_stop, self.val.rows)
            per_image.save(self.folder, per_image.evaluate(self.evaluate, self.val, images, row["epoch"]))
        self.state.history, self.state.epoch, self.state.step = rows, row["epoch"], 0
        self.state.loss_sum = self.state.step_seconds = 0.0
        self.save()
        if self.is_chief:
            self.keep_best()
            run_folder.write_metrics(self.folder, self.state.history)
            self.draw(row)
        print(f"epoch {row['epoch']}/{self.flags.epochs}: {history.line(row)}")

    def row(self, metrics):
        """Return the row (see `core.training.history`) of the epoch that has just been validated.

        metrics: name -> value, the validation metrics, including "loss".
        """
        return {
            "epoch": self.state.epoch + 1,
            "step": (self.state.epoch + 1) * self.steps,
            "train_loss": self.state.loss_sum / len(self.train),
            **{f"val_{name}": float(value) for name, value in metrics.items()},
            "images_per_second": len(self.train) / self.state.step_seconds,
            "seconds": time.monotonic() - self.started,
        }

    def draw(self, row):
        """Write a picture of validation predictions to the run folder.

        With --tensorboard, also write the picture and the row for TensorBoard. row: the epoch's row of the
        history. If the picture or the TensorBoard data cannot be written, prints a warning instead of ending
        the run.
        """
        path = self.picture_path(row["epoch"])
        data = " or the TensorBoard data of this epoch" if self.writer else ""
        with warn_on_failure(f"the picture {path}{data}"):
            shown = self.val.rows[np.unique(np.linspace(0, len(self.val) - 1, PICTURES).astype(int))]
            panel = render.examples_panel(self.val, shown, self.predict, self.experiment.palette)
            run_folder.write_picture(path, panel)
            if self.writer:
                tensorboard.write(self.writer, row, panel)

    def picture_path(self, epoch):
        return self.folder / "predictions" / f"epoch_{epoch:03}.png"

    def save(self):
        """Add the pending losses to the state, and save a checkpoint. Only the chief worker writes the file.

        Raises InputError if `add_losses` does, if a variable holds NaN or infinite values, or if the file
        cannot be written.
        """
        self.add_losses()
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise self.diverged("a variable")
        self.state.seconds = time.monotonic() - self.started
        if self.is_chief:
            checkpoint.save(self.folder / "checkpoints", arrays, dataclasses.asdict(self.state))

    def keep_best(self):
        """Save the last checkpoint also as `best.npz` if the last finished epoch is the best epoch so far."""
        if history.best(self.state.history, self.best_metric) is self.state.history[-1]:
            checkpoint.keep(self.folder / "checkpoints", "best")

    def diverged(self, what):
        """Return the InputError for a diverged training.

        what: the words with which the message begins. They name the value that is NaN, infinite or too large,
        such as "a variable".
        """
        return InputError(
            f"{what} is NaN, infinite or far too large {self.place()}: the training diverged; begin a new"
            " --run_dir with a smaller --learning_rate, with --clip_norm=1, or with smaller class weights; if"
            f" the loss function has values of {MAX_LOSS:.0f} or more by design, divide it by a constant. The"
            " checkpoints were saved before this step."
        )

    def place(self):
        """Return words for an error message that say at which step of the run the error was found."""
        step = self.state.epoch * self.steps + self.state.step
        return f"at or shortly before step {step} of the run (epoch {math.ceil(step / self.steps)})"

    def report(self):
        """Write summary.json and curves.png to the run folder, and print the result."""
        if self.is_chief:
            old = run_folder.read_summary(self.folder)  # for checkpoints of versions without `State.trained`
            trained = {name: old.get(name, {}) for name in ("device", "versions", "lowering")}
            facts = {
                "seconds": self.state.seconds,
                "parameters": count(self.weights),
                **(self.state.trained or trained),
                **({"initial_weights": self.state.initial} if self.state.initial else {}),
            }
            history.report(
                self.state.history,
                self.folder,
                self.experiment.name,
                best_metric=self.best_metric,
                **facts,
            )
