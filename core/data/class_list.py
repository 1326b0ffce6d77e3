"""Read and write text files that list the classes of masks. A line has a class name and a mask value.

    # a comment
    road: 128,64,128
    vegetation: #6b8e23

The mask value of a class is the value of the class's pixels in the mask files. It is a colour, as in these
lines, or an id, as in the line "road: 7". A file must not contain both ids and colours. A class with several
mask values has one line for each value.

Networks and metrics use class ids: the class names are numbered from 0 in the order in which they first
appear in the file. The class id of a class may differ from its id in the mask files.
"""

import dataclasses
import re

from core.data import colours, listing
from core.runtime.errors import InputError

MAX_CLASSES = 255  # class ids are uint8, and 255 marks ignored pixels
MAX_ID = 2**16 - 1  # PNG files store ids with at most 16 bits
# regular expressions: VALUE matches a mask value (#6b8e23, 70,70,70 or 7), LINE matches a line of the file.
# White space, a comma or an equals sign can replace the colon of a line. A name has neither a colon nor an
# equals sign, so everything after the first of these signs must be the value.
VALUE = r"#[0-9a-fA-F]{6}|\d{1,3}\s*[,\s]\s*\d{1,3}\s*[,\s]\s*\d{1,3}|\d+"
LINE = re.compile(rf"(?P<name>[^\s:=][^:=]*?)[\s,:=]+(?P<value>{VALUE})")


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
        """Return the RGB of each class in output images, as a tuple of (red, green, blue).

        If mask values are colours, the RGB of a class is the first colour of the class. If mask values are
        ids, it is the `voc_colour` of the first id of the class.
        """
        return tuple(
            colours.unpack(values[0]) if self.coloured else voc_colour(values[0]) for values in self.values
        )


def parse_value(text):
    """Parse the text of a mask value and return (value, coloured).

    The text "7" is an id: value is the int 7, and coloured is False. The texts "70,70,70" and "#464646" are
    colours: value is the packed colour (`colours.pack`), and coloured is True. Raises ValueError for texts of
    other forms, and for decimal numbers out of range.
    """
    fits = re.fullmatch(VALUE, text)
    if fits and text.startswith("#"):
        return int(text[1:], 16), True
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if not fits or max(numbers) > (255 if len(numbers) == 3 else MAX_ID):
        raise ValueError(
            "the value is neither an id from 0 to 65535 nor a colour such as 128,64,128 or #804080"
        )
    return (int(colours.pack(numbers)), True) if len(numbers) == 3 else (numbers[0], False)


def value_text(value, coloured):
    """Return the text of a mask value: "#rrggbb" for a packed colour, the decimal number for an id."""
    return "#{:02x}{:02x}{:02x}".format(*colours.unpack(value)) if coloured else str(value)


def read(path):
    """Read a `ClassList` from a text file.

    Raises InputError that names the file in these cases:
    - the file is missing or not UTF-8 text
    - a line is not a name followed by a mask value, or it repeats a mask value of an earlier line; the
      message gives the line number
    - the file contains both ids and colours
    - the number of classes is below 2 or above MAX_CLASSES
    """
    values, kinds = {}, set()
    for number, line in listing.lines(path):
        found = LINE.fullmatch(line)
        try:
            if not found:
                raise ValueError(
                    "it must have the form NAME: VALUE, with one id or one colour as the value and with"
                    " neither a colon nor an equals sign in the name"
                )
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
    """Return the text of a file that `read` converts back to the given `ClassList`.

    comments: a list of texts. Each text becomes a comment line at the top of the file.
    """
    lines = [f"# {comment}" for comment in comments]
    for name, values in zip(class_list.names, class_list.values):
        lines += [f"{name}: {value_text(value, class_list.coloured)}" for value in values]
    return "".join(f"{line}\n" for line in lines)


def read_weights(path, names):
    """Read the loss weight of each class from a text file; return a tuple of floats.

    names: the class names. The tuple has the order of `names`. A line of the file has the form NAME: WEIGHT,
    where WEIGHT is at least 0 and below 1e6.

    Raises InputError if the file cannot be read, if a line has another form, if a line has a name that is not
    in `names`, if two lines have the same name, or if a name in `names` has no line.
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
    """Return the text of a file that `read_weights` converts back to the given class weights."""
    return "".join(f"{name}: {weight!r}\n" for name, weight in zip(names, weights))


def voc_colour(index):
    """Return the RGB of an id in the colour map of PASCAL VOC, as (red, green, blue), each 0..255.

    The colour of id 0 is black. No two ids from 0 to MAX_ID have the same colour.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return tuple(channels)
