"""Image files -> upright 8-bit RGB, or one sentence that says what is wrong."""

import os
import re
import stat
import warnings

import numpy as np
from PIL import Image, ImageOps

from core.runtime import files
from core.runtime.errors import InputError

ORIENTATION = 0x0112  # EXIF's tag
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # not PostScript: it is a program
MAX_PIXELS = 89_478_485  # a quarter GiB of RGB: Pillow's own bound

Image.MAX_IMAGE_PIXELS = None  # larger files are refused below, by whoever reads them
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage that does no harm: they name no file


def read_rgb(path, *, max_pixels=MAX_PIXELS):
    """PIL image, mode RGB, turned upright by its EXIF tag, fully decoded.

    Greyscale, palette, CMYK and 16-bit files are converted; alpha is dropped; of
    several pictures in a file it is the first. Raises InputError that names the
    file: damaged, not an image, not readable, larger than max_pixels. In memory a
    pixel takes four bytes, and more where the file has to be converted. Where the
    machine fails, not the file, it is MemoryError or an OSError.
    """
    return _read(path, max_pixels, _rgb)


def map_rgb(path):
    """uint8 [H, W, 3] of a file that holds plain RGB, memory-mapped; None for any other.

    That is what uncompressed TIFF and binary PPM files do: rows from the top, one
    after the other. Never raises: reading says what is wrong with a file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            rows, (first, *_) = 0, (offset for _, _, offset, _ in image.tile)
            for codec, (left, top, right, bottom), offset, arguments in image.tile:
                layout, stride, *_ = arguments if isinstance(arguments, tuple) else (arguments, 0)
                plain = codec == "raw" and layout == image.mode == "RGB" and stride in (0, 3 * width)
                follows = offset == first + 3 * width * rows and (left, top, right) == (0, rows, width)
                if not (plain and follows):
                    return None
                rows = bottom
            turned = image.getexif().get(ORIENTATION, 1) != 1  # not before: of a PNG, this decodes it all
            if turned or rows != height:
                return None
        return np.memmap(path, np.uint8, "r", offset=first, shape=(height, width, 3))
    except Exception:  # damaged files raise nearly anything
        return None


def read_class_ids(path):
    """PIL image, mode L, of the class ids in a PNG file: its numbers as they are.

    Raises InputError that names the file: as `read_rgb`, and if it holds colours.
    """
    return _read(path, MAX_PIXELS, _class_ids)


def _rgb(image):
    if image.mode in ("I", "F"):
        raise ValueError("32-bit numbers, of which none is known to be white")
    if image.mode.startswith("I;16"):  # 16 bits, which Pillow would clip at 255: keep the upper byte
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _class_ids(image):
    if image.format != "PNG" or image.mode not in ("L", "P"):  # others blend numbers, or have none
        raise ValueError(
            "a mask of class ids is a PNG with one number of up to 8 bits a pixel, this file is"
            f" {image.format} {image.mode}"
        )
    ids = np.asarray(image)
    if image.mode == "L":
        with open(image.filename, "rb") as file:
            bits = file.read(25)[-1]
        ids = ids // (255 // (2**bits - 1))  # Pillow stretches 2 and 4 bits over 0..255
    return Image.fromarray(ids)


def _read(path, max_pixels, convert):
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a file")  # but a folder, or a pipe that keeps one waiting
        with Image.open(path, formats=FORMATS) as image:
            image.verify()  # a PNG's checksums, which decoding passes over
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
        return convert(image)
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: more than the {max_pixels:,} pixels that are decoded at once; scale it down."
        ) from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable.") from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in files.PASSING:
            raise
        reason = str(error).split(str(path))[0].rstrip(" '\"") or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"none of {', '.join(FORMATS)}"
        raise InputError(f"{path}: not a readable image ({reason}); replace or remove the file.") from None


def require_same_size(photo, mask, mask_file):
    """Raise InputError if a photo and its mask, PIL images, are not of one size."""
    if photo.size != mask.size:
        raise InputError(
            f"{mask_file}: {mask.width}x{mask.height} pixels, but its photo has"
            f" {photo.width}x{photo.height}; replace one of them."
        )


def here_and_below(folder):
    """A folder and the visible ones in it: archives put another folder around a data set."""
    below = (path for path in folder.glob("*") if path.is_dir() and path.name[0] != ".")
    return [folder, *sorted(below)]


def image_files(folder, suffixes):
    """The visible files of a folder with one of the suffixes, in natural order.

    Natural: 2.jpg before 10.jpg, whatever the file system's order. Suffixes are
    compared without regard to case. Raises InputError where the folder can't be
    listed, and for a folder, a pipe or a link to nowhere that is called like a file.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in suffixes]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}); make it a folder that can."
        ) from None
    paths = sorted((path for path in paths if path.name[0] != "."), key=_natural)
    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"{path}: not a file, nor a link to one; remove or rename it.")
    return paths


def _natural(path):
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
