"""Show the progress of a long loop: redraw one line on a terminal, or print a line every 30 s to a log file.

There are two reasons not to use `tf.keras.utils.Progbar`. It writes many lines with colour codes to a log
file. In a resumed training, it shows a wrong rate and a wrong remaining time, because it counts the steps of
earlier processes as if this process had done them.
"""

import sys
import threading
import time

LINE_SECONDS = 30.0  # shortest interval between two lines in a log file or notebook
REDRAW_SECONDS = 0.2  # shortest interval between two updates of the line on a terminal
BAR_WIDTH = 20  # width of the bar in characters


class Progress:
    """The progress line of a loop.

    total: the number of units in the loop. A unit is, for example, a step or a file. unit: the name of a
    unit, in the singular. done: the number of units that were finished before this object was created, such
    as the steps of an earlier process. keep: if False, the line is removed from a terminal after the loop.
    The rate leaves out the time until the first update and the units that were finished by then, because this
    time may include start-up work such as tracing.
    """

    def __init__(self, total, unit, *, done=0, keep=True):
        self.total, self.unit, self.done, self.keep = total, unit, done, keep
        self.first = None  # (time, number of units done) at the first update
        self.shown = time.monotonic()  # time of the last print; before the first print, the time of creation
        self.on_terminal = sys.stdout.isatty()
        self.adding = threading.Lock()  # held while `add` changes the number of finished units

    def add(self, units=1, facts=()):
        """Add to the number of finished units, and print the line as `update` does.

        Threads may call this function at the same time. units: an integer, or a `fractions.Fraction` for a
        part of a unit, because sums of fractions are exact. facts: see `update`.
        """
        with self.adding:
            self.update(self.done + units, facts)

    def update(self, done, facts=()):
        """Set the number of finished units, and print the line unless it was printed a short time ago.

        On a terminal, the line is printed if at least REDRAW_SECONDS have passed since it was last printed.
        Elsewhere, at least LINE_SECONDS must have passed. Before the first print, the interval is measured
        from the creation of the object. On a terminal, the update with done == total always prints the line
        or, if `keep` is False, removes it.
        facts: (name, number) pairs to show in the line.
        """
        self.done, now = done, time.monotonic()
        self.first = self.first or (now, done)
        ended = done == self.total
        wait = REDRAW_SECONDS if self.on_terminal else LINE_SECONDS
        if now - self.shown < wait and not (ended and self.on_terminal):
            return
        self.shown = now
        text = self.line(now, facts)
        if self.on_terminal:
            removed = ended and not self.keep
            text, end = ("", "") if removed else (text, "\n" if ended else "")
            # the escape code \x1b[K clears the rest of the line
            print(f"\r{text}\x1b[K", end=end, flush=True)
        else:
            print(text, flush=True)

    def close(self):
        """If the loop stopped before its last unit, print a line break on a terminal."""
        if self.on_terminal and self.done != self.total:
            print(flush=True)

    def line(self, now, facts=()):
        """Return the progress line as text. now: the current `time.monotonic()`. facts: see `update`."""
        started, before = self.first
        rate = (self.done - before) / (now - started) if now > started else 0
        filled = int(min(self.done / self.total, 1) * BAR_WIDTH)
        bar = "=" * filled + "." * (BAR_WIDTH - filled)
        parts = [f"{self.unit} {float(self.done):,.0f}/{self.total:,} [{bar}]"]
        parts += [f"{name} {value:.4g}" for name, value in facts]
        if rate:
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
        if rate and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(parts)


def track(items, total, unit):
    """Yield the items of an iterable and show a progress line. On a terminal, the line is removed at the end.

    total: the number of items. unit: the name of an item, in the singular.
    """
    bar = Progress(total, unit, keep=False)
    for item in items:
        yield item
        bar.add()


def duration(seconds):
    """Format a number of seconds as text: minutes and seconds (0:07, 12:30), or also hours (3:00:00)."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
