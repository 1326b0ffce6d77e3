"""The training loop: one for every experiment, exactly resumable at any step.

Each step depends on the variables and the `State`, which are in the checkpoint, and on
(seed, epoch, step), which determine the order of the images and all random choices. Files
are written so that a process killed at any moment can be continued as if it had never
stopped.
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

from core.data import augment, batches, cache, membership, resident
from core.experiment import IGNORE
from core.inference import per_image, render
from core.inference.evaluate import make_evaluate, make_predict
from core.runs import checkpoint, code_digest, run_folder
from core.runtime import device, distribution, precision, progress
from core.runtime.errors import InputError
from core.training import history, optimizer, signals, state, tensorboard
from core.training.step import make_train_step, recipe_from_flags
from core.weights import count

LOSS_SYNC_SECONDS = 0.5  # how often the losses are fetched from the device
MAX_LOSS = 100.0  # a larger loss, in nats per pixel, ends the run; chance level of 34 classes is 3.5
PICTURES = 6  # validation images in the picture of each epoch


def run(experiment, define_flags, flags):
    """Train an experiment in its run folder, from the start or from its last checkpoint.

    Returns the process' exit code: 0, or 130 or 143 if SIGINT or SIGTERM ended the
    training after its state was saved. Raises InputError for what the user can cure.
    """
    folder = Path(flags.run_dir)
    device_name = device.set_up(flags)
    with distribution.strategy(flags.strategy).scope(), distribution.lost_workers_named():
        if distribution.workers() > 1:
            device_name = f"{distribution.workers()} workers with {device_name}"
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if flags.batch_size % replicas:
            raise InputError(
                f"--batch_size={flags.batch_size}: must be a multiple of the {replicas} replicas."
            )
        if flags.precision == precision.AUTO:
            flags.precision = _choose_precision(folder)
        claim = run_folder.claim(folder, experiment.name, define_flags, flags)
        with claim if distribution.is_chief() else contextlib.nullcontext():
            result_flags = repr(run_folder.result_flags(define_flags, flags))
            distribution.check_alike([zlib.crc32(result_flags.encode())])
            training = Training(experiment, flags, folder, device_name)
            if training.is_finished():
                print("this run is finished; another --run_dir begins a new one")
                training.report()
                return 0
            training.check_data()
            return training.run()


def _choose_precision(folder):
    """Return the precision that --precision=auto stands for: a begun run's own, else the faster one.

    The run folder records the choice. All workers take the choice of the first.
    """
    recorded = run_folder.recorded_flag(folder, "precision")
    if recorded:
        print(f"--precision=auto: {recorded}, as this run began")
        return recorded
    seconds = precision.step_seconds()
    fastest = precision.CANDIDATES.index(min(seconds, key=seconds.get))
    chosen = precision.CANDIDATES[distribution.gathered([fastest])[0, 0]]
    steps = ", ".join(f"{1000 * each:.1f} ms in {name}" for name, each in seconds.items())
    print(f"--precision=auto: {chosen}; a test step took {steps}")
    return chosen


class Training:
    """A run in this process: variables, data, compiled functions and progress.

    weights, slots, averages: dicts of `tf.Variable` by name; variables: all of them.
    state:      `State`, the progress.
    train, val: `core.data.cache.Examples`.
    pending:    (number of examples, loss) of the steps that are not in the state yet.
    """

    def __init__(self, experiment, flags, folder, device_name):
        """Make the variables, from the last checkpoint where there is one, and load the data."""
        self.experiment, self.flags, self.folder = experiment, flags, folder
        self.device_name = device_name
        self.is_chief = distribution.is_chief()
        self.dtype = tf.dtypes.as_dtype(flags.precision)
        self.pending, self.signals, self.writer = [], [], None
        self.init_variables()
        self.keep_best()  # the process may have died after a save and before this
        self.load_data()
        self.started = time.monotonic() - self.state.seconds
        self.make_functions()

    def init_variables(self):
        """Make the variables and the state: of the last checkpoint, or of a new run."""
        self.weights = self.experiment.init_weights(seed=self.flags.seed)
        saved = checkpoint.load_latest(self.folder / "checkpoints", mend=self.is_chief)
        if not saved:
            self.experiment.load_weights(self.weights)
        self.slots = optimizer.init_slots(self.weights, self.dtype)
        self.averages = optimizer.init_averages(self.weights) if self.flags.ema_decay else {}
        self.variables = self.weights | self.slots | self.averages
        self.state = state.State()
        if saved:
            checkpoint.restore(self.variables, saved[0], self.folder)
            self.state = state.from_json(saved[1], self.folder)
        parameters = f"{count(self.weights):,} parameters"
        print(
            f"{self.experiment.name}: {parameters}, {self.flags.precision} on {self.device_name}", flush=True
        )

    def load_data(self):
        """Load both splits. Raises InputError if they are not the images that the run began with."""
        dataset = self.experiment.dataset
        self.train, self.val = (cache.load_split(dataset, self.flags, split) for split in ("train", "val"))
        self.steps = math.ceil(len(self.train) / self.flags.batch_size)  # of an epoch
        checksums = [self.train.checksum, self.val.checksum]
        distribution.check_alike([self.state.epoch, self.state.step, *checksums])
        if self.state.data not in ([], checksums):
            raise InputError(
                f"{self.train.data_dir}: files, or the code that reads them, changed since {self.folder}"
                " was begun; begin a new --run_dir."
            )
        self.state.data = checksums
        if self.is_chief:
            membership.write(self.folder, self.train, self.val)

    def check_data(self):
        """Raise InputError if the masks do not fit the experiment; print the size of the data."""
        classes = len(self.experiment.classes)
        for examples in (self.train, self.val):
            found = np.flatnonzero(examples.class_pixels).tolist()
            beyond = [index for index in found if index >= classes]
            if beyond and not (self.experiment.ignore and beyond == [IGNORE]):
                raise InputError(
                    f"{examples.data_dir}: the masks hold class ids {beyond}, but {self.experiment.name}"
                    f" has the classes 0 to {classes - 1}; correct the reader, or the list of classes."
                )
        self.experiment.dataset.check(self.train.class_pixels, self.train.files)
        sizes = f"{len(self.train)} training and {len(self.val)} validation images"
        print(f"{sizes} from {self.train.data_dir}", flush=True)

    def make_functions(self):
        """Make the functions of a step, a validation and a picture; each is traced when first called."""
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
        """Train to the end of the run, or until a signal; return the exit code."""
        if self.flags.tensorboard and self.is_chief:
            self.writer = tensorboard.writer(self.folder)
        self.make_batches = self.batches_maker()
        if self.state.history or self.state.step:
            print(f"continuing after {self.state.epoch} epochs and {self.state.step} steps", flush=True)
        code_digest.record(
            self.folder,
            self.experiment.name,
            epoch=self.state.epoch,
            step=self.state.step,
            write=self.is_chief,
        )
        with signals.catch_signals() as self.signals:  # not earlier: a killed preparation goes on anyway
            try:
                while not self.is_finished():
                    self.train_epoch()
                    self.finish_epoch()
            except signals.Stopped:
                self.save()
                print(f"stopped and saved; the same command continues {self.folder}")
                return 128 + (self.signals or [signal.SIGTERM])[0]  # empty if another worker got the signal
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:  # for `experiments.compare`
            per_image.save(self.folder, per_image.evaluate(self.evaluate, self.val, self.state.epoch))
        self.report()
        return 0

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
        """The batches that a function of `core.data.batches` makes, split among the replicas."""
        return tf.distribute.get_strategy().distribute_datasets_from_function(
            lambda context: make_batches(examples, self.flags.batch_size, context=context, **options)
        )

    def train_epoch(self):
        """Make the steps that are left of the current epoch."""
        bar = progress.Progress(self.steps, "step", done=self.state.step)
        saved = synced = time.monotonic()
        for batch in signals.stop_when(self.must_stop, self.make_batches(self.state.epoch, self.state.step)):
            seed = tf.constant([self.flags.seed, self.state.epoch * self.steps + self.state.step], tf.int64)
            examples = min(self.flags.batch_size, len(self.train) - self.state.step * self.flags.batch_size)
            self.pending.append((examples, self.train_step(*batch, seed)))
            self.state.step += 1
            if time.monotonic() - synced > LOSS_SYNC_SECONDS or self.state.step == self.steps:
                self.add_losses()
                self.state.step_seconds += time.monotonic() - synced
                self.show_progress(bar)
                if time.monotonic() - saved > 60 * self.flags.checkpoint_every:
                    self.save()
                    saved = time.monotonic()
                synced = time.monotonic()

    def must_stop(self):
        """True if a worker received a signal; all workers then stop at the same step."""
        return distribution.gathered([len(self.signals)]).any()

    def add_losses(self):
        """Wait for the losses of the last steps and add them to the state; raise if one is absurd."""
        for examples, loss in self.pending:
            value = float(loss)
            if not value < MAX_LOSS:  # also if it is NaN
                raise self.diverged(f"the loss ({value:.3g})")
            self.state.loss_sum += value * examples
        self.pending.clear()

    def show_progress(self, bar):
        seen = min(self.state.step * self.flags.batch_size, len(self.train))
        rate = seen / self.state.step_seconds
        bar.update(self.state.step, [("loss", self.state.loss_sum / seen), ("images/s", rate)])

    def finish_epoch(self):
        """Validate, and record the epoch in the checkpoint, metrics.csv and a picture."""
        val_batches = self.distributed(batches.evaluation, self.val)
        count = math.ceil(len(self.val) / self.flags.batch_size)
        val_batches = progress.track(val_batches, count, "validation step")
        means, confusion = self.evaluate(signals.stop_when(self.must_stop, val_batches))
        row = self.row({**means, **self.experiment.metrics(confusion)})
        if self.is_chief:
            self.draw(row)
        self.state.history.append(row)
        self.state.epoch, self.state.step = row["epoch"], 0
        self.state.loss_sum = self.state.step_seconds = 0.0
        self.save()
        self.keep_best()
        if self.is_chief:
            run_folder.write_metrics(self.folder, self.state.history)
        print(f"epoch {row['epoch']}/{self.flags.epochs}: {history.line(row)}", flush=True)

    def row(self, metrics):
        """The history's row of the epoch that has just been validated."""
        return {
            "epoch": self.state.epoch + 1,
            "step": (self.state.epoch + 1) * self.steps,
            "train_loss": self.state.loss_sum / len(self.train),
            **{f"val_{name}": float(value) for name, value in metrics.items()},
            "images_per_second": len(self.train) / self.state.step_seconds,
            "seconds": time.monotonic() - self.started,
        }

    def draw(self, row):
        """Write the picture of an epoch's predictions, and its row to TensorBoard."""
        shown = self.val.rows[np.unique(np.linspace(0, len(self.val) - 1, PICTURES).astype(int))]
        panel = render.examples_panel(self.val, shown, self.predict, self.experiment.palette)
        run_folder.write_picture(self.folder / "predictions" / f"epoch_{row['epoch']:03}.png", panel)
        if self.writer:
            tensorboard.write(self.writer, row, panel)

    def save(self):
        """Write a checkpoint of all variables and the state. Raises InputError if one is not finite."""
        self.add_losses()
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise self.diverged("a weight")
        self.state.seconds = time.monotonic() - self.started
        if self.is_chief:
            checkpoint.save(self.folder / "checkpoints", arrays, dataclasses.asdict(self.state))

    def keep_best(self):
        """Keep the last checkpoint as the best one if its epoch is the best so far."""
        fresh = self.is_chief and self.state.history and self.state.step == 0
        if fresh and history.best(self.state.history, self.experiment.best) is self.state.history[-1]:
            checkpoint.keep(self.folder / "checkpoints", "best")

    def diverged(self, what):
        """The InputError for a loss or weight that is not finite or too large."""
        return InputError(
            f"{what} is not finite or absurdly large at or before step {self.state.step} of epoch"
            f" {self.state.epoch + 1}: the training diverged. Checkpoints are from before; begin a new"
            " --run_dir with a smaller --learning_rate, or with --clip_norm=1."
        )

    def report(self):
        """Write metrics.csv, summary.json and the curves, and print the result."""
        if self.is_chief:
            parameters = count(self.weights)
            facts = {"seconds": self.state.seconds, "parameters": parameters, "device": self.device_name}
            history.report(self.state.history, self.folder, self.experiment, **facts)
