"""Progress of a long loop: a line that is redrawn on a terminal, or a line every 30 s in a log file.

`tf.keras.utils.Progbar` prints nothing useful to a log file. After a resume it also counts the units of
earlier processes as done by this process, so its rate and remaining time are wrong.
"""

import sys
import time

LINE_SECONDS = 30.0  # interval between lines in a log file or notebook
REDRAW_SECONDS = 0.2  # interval between updates of the line on a terminal
BAR_WIDTH = 20


class Progress:
    """The progress of a loop of `total` units, `done` of which were finished before it started.

    keep: False removes the line from a terminal at the end. The rate is measured from the first update
    on, because the first units may include start-up work such as tracing.
    """

    def __init__(self, total, unit, *, done=0, keep=True):
        self.total, self.unit, self.done, self.keep = total, unit, done, keep
        self.first = None  # (time, units done) at the first update
        self.shown = time.monotonic()  # time of the last line
        self.on_terminal = sys.stdout.isatty()

    def add(self, units=1, facts=()):
        """Count more units as done."""
        self.update(self.done + units, facts)

    def update(self, done, facts=()):
        """Set the number of units done. facts: (name, number) pairs to show."""
        self.done, now = done, time.monotonic()
        self.first = self.first or (now, done)
        ended = done == self.total
        wait = REDRAW_SECONDS if self.on_terminal else LINE_SECONDS
        if now - self.shown < wait and not (ended and self.on_terminal):
            return
        self.shown = now
        text = self.line(now, facts)
        if self.on_terminal:
            text, end = (text, "\n" if ended else "") if self.keep or not ended else ("", "")
            print(f"\r{text}\x1b[K", end=end, flush=True)  # the escape code clears the rest of the line
        else:
            print(text, flush=True)

    def close(self):
        """End the line on a terminal if the loop stopped early."""
        if self.on_terminal and self.done != self.total:
            print(flush=True)

    def line(self, now, facts=()):
        """Return the line as text. now: `time.monotonic()`."""
        started, before = self.first
        rate = (self.done - before) / (now - started) if now > started else 0
        filled = int(min(self.done / self.total, 1) * BAR_WIDTH)
        bar = "=" * filled + "." * (BAR_WIDTH - filled)
        parts = [f"{self.unit} {self.done:,.0f}/{self.total:,} [{bar}]"]
        parts += [f"{name} {value:.4g}" for name, value in facts]
        if rate:
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
        if rate and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(parts)


def track(items, total, unit):
    """Yield the `total` items and show the progress; on a terminal, the line is removed at the end."""
    bar = Progress(total, unit, keep=False)
    for item in items:
        yield item
        bar.add()


def duration(seconds):
    """Format seconds as text: 0:07, 12:30 or 3:00:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
