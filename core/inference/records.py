"""Read and write shares.jsonl, the list of all images whose results are in an output folder.

Each line is a record: a JSON object that describes one image.

    {"image": absolute path, "name": NAME, "width": 411, "height": 277, "shares": {"road": 0.3, ...}}

NAME is the name of the image's result files. "shares" holds, for each class, the share of the image's pixels
that were predicted as this class. If an image file has several pages, each page has its own record. The
additional field "page" then holds the page number, from 1.
A later call of `predict` keeps the records of earlier calls. If an image is segmented again, its new record
replaces its earlier record. A record is added as soon as the result files of its image are complete.
"""

import contextlib
import json
import os
import threading

from core.runtime import files
from core.runtime.errors import InputError


class Records:
    """The records in a file shares.jsonl.

    path: the file. It may be missing; then there are no records at first. by_name: the records as a dict,
    NAME -> record. lock: held while a record is added, because several threads may add records.
    """

    def __init__(self, path):
        self.path = path
        self.by_name = _read(path) if path.is_file() else {}
        self.lock = threading.Lock()

    def names(self):
        """Return a dict: (absolute path of the image, page number or None) -> NAME."""
        return {
            (os.path.abspath(record["image"]), record.get("page")): name
            for name, record in self.by_name.items()
        }

    def add(self, record):
        """Append a record, a dict, to the file and to `by_name`.

        In `by_name`, the record replaces an earlier record with the same NAME. Threads may call this function
        at the same time. Raises InputError if the file cannot be written.
        """
        with self.lock, files.writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            self.by_name[record["name"]] = record
            file.write(json.dumps(record) + "\n")

    def move_to_end(self, names):
        """Move the records with these NAMEs to the end of `by_name`, in the given order.

        names: an iterable of NAMEs. A NAME without a record is ignored.
        """
        for name in names:
            if name in self.by_name:
                self.by_name[name] = self.by_name.pop(name)

    def rewrite(self):
        """Rewrite the file with one line for each record in `by_name`."""
        files.write_text(self.path, "".join(f"{json.dumps(each)}\n" for each in self.by_name.values()))


@contextlib.contextmanager
def opened(output_dir):
    """Context manager that locks an output folder and yields the `Records` of its shares.jsonl.

    The folder is created if it is missing. When the block begins and when it ends, shares.jsonl is rewritten
    with the latest record of each NAME. Raises InputError if the folder cannot be written, if another process
    has locked the folder, or if a line before the last line of shares.jsonl is not a record.
    """
    with contextlib.ExitStack() as stack:
        with files.writing(output_dir):
            output_dir.mkdir(parents=True, exist_ok=True)
            busy = f"{output_dir}: another process writes here; wait for it or take another --output_dir."
            stack.enter_context(files.lock(output_dir / ".lock", busy=busy))
        records = Records(output_dir / "shares.jsonl")
        records.rewrite()
        try:
            yield records
        finally:
            records.rewrite()


def _read(path):
    """Return the records in a file, a dict: NAME -> record.

    If the last line is not a record, the line is ignored, because a killed process may have written only a
    part of the line. Raises InputError if any line before the last one is not a record.
    """
    lines, by_name = path.read_text("utf-8", errors="replace").split("\n"), {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record["image"], str) or not isinstance(record["name"], str):
                raise TypeError
            by_name[record["name"]] = record
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise InputError(
                    f"{path}: line {number} does not describe an image; remove the line or use another"
                    " --output_dir."
                ) from None
    return by_name
