"""shares.jsonl in an output folder: a line of JSON for each segmented image, kept across calls.

    {"image": absolute path, "name": NAME, "width": 411, "height": 277, "shares": {"road": 0.3, ...}}

and "page", counted from 1, for a page of a file that has several.
"""

import contextlib
import json
import os

from core.runtime import files
from core.runtime.errors import InputError


class Records:
    """The records of an output folder, name -> dict, and a way to add to them."""

    def __init__(self, path):
        self.path = path
        self.by_name = _read(path) if path.is_file() else {}

    def names(self):
        """Map (absolute path of the image, page or None) to the name of its results."""
        return {
            (os.path.abspath(record["image"]), record.get("page")): name
            for name, record in self.by_name.items()
        }

    def add(self, record):
        """Write a record, which replaces an earlier one of the same name."""
        self.by_name[record["name"]] = record
        with files.writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def rewrite(self):
        """Write the file anew: one line for each name, and no incomplete line."""
        files.write_text(self.path, "".join(f"{json.dumps(each)}\n" for each in self.by_name.values()))


@contextlib.contextmanager
def opened(output_dir):
    """Yield the `Records` of a folder for the block; create the folder if it is missing.

    Raises InputError if the folder cannot be written, if another process writes results there,
    and for a line of shares.jsonl that is not a record.
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
    """The records of a file, name -> dict; an incomplete last line, of a killed process, is left out."""
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
