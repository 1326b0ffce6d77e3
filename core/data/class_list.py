"""Read and write text files that list the classes of masks. A line has a class name and a mask value.

    # a comment
    road: 7
    building: 70,70,70
    vegetation: #6b8e23

A mask value is what the pixels of the class have in the mask files: an id, as in the first line, or a
colour. A file must not mix ids and colours. A class with several mask values has one line for each value.

The class id of a class, which networks and metrics use, is its position in the file: names are numbered
from 0 in the order in which they first appear. It may differ from the id in the masks.
"""

import dataclasses
import re

from core.data import colours, listing
from core.runtime.errors import InputError

MAX_CLASSES = 255  # class ids are uint8, and 255 marks ignored pixels
MAX_ID = 2**16 - 1  # PNG files store ids with at most 16 bits
# regular expressions for a mask value (#6b8e23, 70,70,70 or 7) and for a line of the file
VALUE = r"#[0-9a-fA-F]{6}|\d{1,3}\s*[,\s]\s*\d{1,3}\s*[,\s]\s*\d{1,3}|\d+"
LINE = re.compile(rf"(?P<name>\S.*?)[\s,:=]+(?P<value>{VALUE})")


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The names and mask values of all classes, in the order of their class ids.

    names:    the name of each class
    values:   for each class, a tuple of its mask values: ids 0..65535, or packed colours (`colours.pack`)
    coloured: True if the mask values are colours, False if they are ids
    """

    names: tuple
    values: tuple
    coloured: bool

    @property
    def palette(self):
        """Return the RGB of each class in output images.

        This is the first mask colour of the class. If masks hold ids, it is the `voc_colour` of the
        first id.
        """
        return tuple(
            colours.unpack(values[0]) if self.coloured else voc_colour(values[0]) for values in self.values
        )


def parse_value(text):
    """Parse a mask value and return (value, coloured).

    A text such as 7 is an id: value is 7 and coloured is False. Texts such as 70,70,70 and #464646
    are colours: value is the packed colour and coloured is True. Raises ValueError for other texts
    and for numbers out of range.
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
    """Return the text of a mask value, in a form that `parse_value` can parse."""
    return "#{:02x}{:02x}{:02x}".format(*colours.unpack(value)) if coloured else str(value)


def read(path):
    """Read the `ClassList` in a text file.

    Raises InputError if a line is wrong or repeats a mask value, if the file mixes ids and colours, and
    unless it has 2 to MAX_CLASSES classes. The message names the file, and the line if a line is wrong.
    """
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
        raise InputError(
            f"{path}: some classes have ids and others have colours; use ids or colours for all."
        )
    if not 2 <= len(values) <= MAX_CLASSES:
        raise InputError(f"{path}: {len(values)} classes; list 2 to {MAX_CLASSES}, one per line.")
    return ClassList(tuple(values), tuple(map(tuple, values.values())), kinds.pop())


def to_text(class_list, comments=()):
    """Return a text that `read` parses into this `ClassList`. comments: lines for the top of the text."""
    lines = [f"# {comment}" for comment in comments]
    for name, values in zip(class_list.names, class_list.values):
        lines += [f"{name}: {value_text(value, class_list.coloured)}" for value in values]
    return "".join(f"{line}\n" for line in lines)


def read_weights(path, names):
    """Read class weights for the loss from a text file; return a tuple of floats in the order of names.

    A line has the form NAME: WEIGHT, where the weight is at least 0 and below 1e6. Raises InputError for a
    line of another form, for a name that is not in names, and for a name with no line or several lines.
    """
    weights = {}
    for number, line in listing.lines(path):
        name, _, text = (part.strip() for part in line.rpartition(":"))
        try:
            weight = float(text)
            if not 0 <= weight < 1e6:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}: line {number} is not NAME: WEIGHT with a weight from 0 to 1e6; correct it."
            ) from None
        if name in weights:
            raise InputError(f"{path}: line {number}: {name} already has a weight; remove one of the lines.")
        weights[name] = weight
    if set(weights) != set(names):
        differing = ", ".join(sorted(set(weights) ^ set(names)))
        raise InputError(
            f"{path}: it must have a line for each class and no other; check these names: {differing}."
        )
    return tuple(weights[name] for name in names)


def weights_to_text(names, weights):
    """Return a text with class weights that `read_weights` can parse."""
    return "".join(f"{name}: {weight!r}\n" for name, weight in zip(names, weights))


def voc_colour(index):
    """Return the RGB of an id in the colour map of PASCAL VOC.

    The colour of id 0 is black. The colours of all ids up to MAX_ID differ.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return tuple(channels)
