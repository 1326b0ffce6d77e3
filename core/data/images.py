"""Image files -> upright 8-bit RGB, or one sentence that says what is wrong."""

import re
import warnings

import numpy as np
from PIL import Image, ImageOps

from core.errors import InputError

MAX_PIXELS = 89_478_485  # a quarter GiB of RGB: Pillow's own bound

# Larger files are refused below, in our words; Pillow's warning would only precede them.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_rgb(path):
    """PIL image, mode RGB, turned upright by its EXIF tag, fully decoded.

    Greyscale, palette, CMYK and 16-bit files are converted; alpha is dropped.
    Raises InputError that names the file: damaged, not an image, not readable,
    larger than MAX_PIXELS.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{path}: {image.width}x{image.height} pixels are more than the"
                    f" {MAX_PIXELS:,} that are decoded at once; scale the image down."
                )
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more pixels than are decoded at once; scale it down.") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable.") from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        reason = str(error).split(str(path))[0].rstrip(" '\"") or type(error).__name__
        raise InputError(
            f"{path}: not a readable image ({reason}); replace or remove the file."
        ) from None


def image_files(folder, suffixes):
    """The visible files of a folder with one of the suffixes, in natural order.

    Natural: 2.jpg before 10.jpg, whatever the file system's order. Suffixes are
    compared without regard to case. Raises InputError where the folder can't be
    listed.
    """
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}).") from None
    return sorted(
        (path for path in paths if path.suffix.lower() in suffixes and path.name[0] != "."),
        key=_natural,
    )


def _natural(path):
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _to_rgb(image):
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip at 255: keep the upper byte of the 16 bits instead
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
