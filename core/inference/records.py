"""The file shares.jsonl in an output folder: one line of JSON per segmented image, kept across calls.

    {"image": absolute path, "name": NAME, "width": 411, "height": 277, "shares": {"road": 0.3, ...}}

A page of a file with several pages has a field "page" too, counted from 1.
"""

import contextlib
import json
import os

from core.runtime import files
from core.runtime.errors import InputError


class Records:
    """The records of an output folder, name -> dict, with a method that adds records."""

    def __init__(self, path):
        self.path = path
        self.by_name = _read(path) if path.is_file() else {}

    def names(self):
        """Return a dict: (absolute path of the image, page or None) -> name of its results."""
        return {
            (os.path.abspath(record["image"]), record.get("page")): name
            for name, record in self.by_name.items()
        }

    def add(self, record):
        """Append a record; it replaces an earlier record with the same name."""
        self.by_name[record["name"]] = record
        with files.writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def rewrite(self):
        """Rewrite the file with exactly one complete line per name."""
        files.write_text(self.path, "".join(f"{json.dumps(each)}\n" for each in self.by_name.values()))


@contextlib.contextmanager
def opened(output_dir):
    """Context manager that yields the `Records` of a folder; creates the folder if it is missing.

    Raises InputError if the folder cannot be written, if another process writes results there,
    and if a line of shares.jsonl is not a record.
    """
    with contextlib.ExitStack() as stack:
        with files.writing(output_dir):
            output_dir.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(files.lock(output_dir / ".lock", wait=False))
            except BlockingIOError:
                raise InputError(
                    f"{output_dir}: another process writes results here; wait for it or take another"
                    " --output_dir."
                ) from None
        records = Records(output_dir / "shares.jsonl")
        records.rewrite()
        try:
            yield records
        finally:
            records.rewrite()


def _read(path):
    """Return the records of a file, name -> dict, without an incomplete last line of a killed process."""
    lines, by_name = path.read_text("utf-8", errors="replace").split("\n"), {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            by_name[record["name"]] = record
            record["image"]
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise InputError(
                    f"{path}: line {number} is not the record of an image; remove it or take another"
                    " --output_dir."
                ) from None
    return by_name
