"""Text files that list the classes of masks: each line has a class name and a mask value.

    # a comment
    road: 7
    building: 70,70,70
    vegetation: #6b8e23

Classes are numbered in the order in which their names first appear. A class with several values
has several lines. A mask value is an id or a colour; one file must not mix ids and colours.
"""

import dataclasses
import re

from core.data import colours, listing
from core.runtime.errors import InputError

MAX_CLASSES = 255  # class ids are uint8, and 255 marks ignored pixels
MAX_ID = 2**16 - 1
VALUE = r"#[0-9a-fA-F]{6}|\d{1,3}\s*[,\s]\s*\d{1,3}\s*[,\s]\s*\d{1,3}|\d+"
LINE = re.compile(rf"(?P<name>\S.*?)[\s,:=]+(?P<value>{VALUE})")


@dataclasses.dataclass(frozen=True)
class ClassList:
    """Classes in the order of their ids.

    names:    one for each class
    values:   for each class, a tuple of its mask values: ids 0..65535, or packed colours
    coloured: True if the values are colours
    """

    names: tuple
    values: tuple
    coloured: bool

    @property
    def palette(self):
        """Return each class' RGB in output images: its first mask colour, or one made from its first id."""
        return tuple(
            colours.unpack(values[0]) if self.coloured else voc_colour(values[0]) for values in self.values
        )


def parse_value(text):
    """Parse a text such as 7 (an id) or 70,70,70 (a colour); return (value, True for a colour).

    A colour may also be written #464646; it is returned as a packed colour. Raises ValueError
    for other texts and for numbers out of range.
    """
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if text.startswith("#"):
        return int(text[1:], 16), True
    if re.fullmatch(VALUE, text) is None or max(numbers) > (255 if len(numbers) == 3 else MAX_ID):
        raise ValueError(
            "the value is neither an id from 0 to 65535 nor a colour such as 128,64,128 or #804080"
        )
    return (int(colours.pack(numbers)), True) if len(numbers) == 3 else (numbers[0], False)


def value_text(value, coloured):
    """Format a value as a text that `parse_value` can parse."""
    return "#{:02x}{:02x}{:02x}".format(*colours.unpack(value)) if coloured else str(value)


def read(path):
    """Return the `ClassList` in a text file. Raises InputError that names the file and the line."""
    values, kinds = {}, set()
    for number, line in listing.lines(path):
        found = LINE.fullmatch(line)
        try:
            if not found:
                raise ValueError("it must have the form NAME: VALUE, with an id or a colour as the value")
            value, coloured = parse_value(found["value"])
            if any(value in others for others in values.values()):
                raise ValueError(f"another line has the value {found['value']} too")
        except ValueError as error:
            raise InputError(f"{path}: line {number}: {error}; correct the line.") from None
        values.setdefault(found["name"], []).append(value)
        kinds.add(coloured)
    if len(kinds) > 1:
        raise InputError(f"{path}: some classes have ids and others have colours; use one kind.")
    if not 2 <= len(values) <= MAX_CLASSES:
        raise InputError(f"{path}: {len(values)} classes; list 2 to {MAX_CLASSES}, one per line.")
    return ClassList(tuple(values), tuple(map(tuple, values.values())), kinds.pop())


def to_text(class_list, comments=()):
    """Format a `ClassList` as a text that `read` can parse, with comment lines at its top."""
    lines = [f"# {comment}" for comment in comments]
    for name, values in zip(class_list.names, class_list.values):
        lines += [f"{name}: {value_text(value, class_list.coloured)}" for value in values]
    return "".join(f"{line}\n" for line in lines)


def read_weights(path, names):
    """Return the weights, floats, of the named classes from a file of lines NAME: WEIGHT.

    Raises InputError for lines of another form, and unless every class has exactly one line.
    """
    weights = {}
    for number, line in listing.lines(path):
        name, _, weight = line.rpartition(":")
        try:
            weights[name.strip()] = float(weight)
            if not 0 <= weights[name.strip()] < 1e6:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}: line {number} is not NAME: WEIGHT with 0 or more; correct it."
            ) from None
    if set(weights) != set(names):
        differing = ", ".join(sorted(set(weights) ^ set(names)))
        raise InputError(f"{path}: it must name each class once; check these names: {differing}.")
    return tuple(weights[name] for name in names)


def weights_to_text(names, weights):
    """Format class weights as a text that `read_weights` can parse."""
    return "".join(f"{name}: {weight!r}\n" for name, weight in zip(names, weights))


def voc_colour(index):
    """Return the RGB of a class id in the colour map of PASCAL VOC: distinct for 0..255, black for 0."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return tuple(channels)
