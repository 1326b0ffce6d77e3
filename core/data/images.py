"""Read image files as 8-bit RGB or as class ids, rotated upright by their EXIF orientation.

Training, evaluation and prediction all read image files with this module. The module handles file formats
and bit depths. For a damaged file, it raises InputError with a one-sentence message.
"""

import functools
import os
import stat
import warnings

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from core.data import remarks, samples
from core.runtime import files
from core.runtime.errors import InputError

# the accepted file formats; PostScript is excluded, because PostScript files are programs
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 89_478_485  # Pillow's default limit; decoding takes 341 MiB at 4 bytes per pixel
ID_MODES = ("1", "L", "P", "I;16")  # Pillow's modes of PNG files that store ids
REDUCED, TRANSPARENCY_MASK = 1, 4  # bits of the tag NewSubfileType that mark pages other than photos
ALPHA = (1, 2)  # values of the tag ExtraSamples that mean alpha
# value of the tag PhotometricInterpretation -> number of colour bands; 0 and 1: grey, 2: RGB
COLOUR_BANDS = {0: 1, 1: 1, 2: 3}

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is off, because `_read` enforces max_pixels
warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's warnings do not name the file


def read_rgb(path, *, max_pixels=MAX_PIXELS, white_level=0, page=None):
    """Decode an image file into a PIL image of mode RGB, rotated upright by its EXIF orientation.

    Greyscale, palette, CMYK and 16-bit files are converted to RGB. An alpha band is dropped. Decoding needs
    4 bytes of memory per pixel, and more during a conversion.

    max_pixels:   the largest accepted width times height.
    white_level:  the sample value of white in a file with more than 8 bits per sample. If white_level is 0,
                  the header of a PGM file gives the value, and in other files it is detected from the samples
                  (`core.data.samples.to_8_bits`). It has no effect on PPM files in colour, which Pillow
                  scales to 8 bits.
    page:         index of a page of the file. None: the first full-size page, which is the first of `pages`.

    Calls `core.data.remarks.add`, so that a warning is printed later, in each of these cases:
    - the image was rotated or mirrored
    - the first full-size page or frame was read, and the file has further ones
    - a TIFF file has bands other than colour and alpha
    - the file has 8 bits per sample and an alpha band in which some pixels are transparent
    - a white level below 65535 was detected

    Raises InputError that names the file if the file is damaged, is not an image, is not readable, has more
    than max_pixels pixels, or needs a white_level that cannot be detected. If memory runs out or the disk
    fails, raises MemoryError or OSError instead.
    """
    convert = functools.partial(_rgb, path=path, white_level=white_level)
    return _read(path, max_pixels, convert, page)


def read_mask_colours(path):
    """Decode a mask of colours into a PIL image of mode RGB, as `read_rgb` does.

    Raises InputError if `read_rgb` does, or if the file has more than 8 bits per sample. For such files,
    `read_rgb` would detect a white level in each mask, and one class could get different colours.
    """

    def convert(image, deep):
        if deep:
            raise ValueError("a mask of colours must have 8 bits per sample")
        return _rgb(image, deep, path=path, white_level=0)

    return _read(path, MAX_PIXELS, convert)


def map_rgb(path):
    """Return the first page of an uncompressed file as a memory-mapped array, uint8 [H, W, 3].

    Returns None for a file that cannot be mapped. Uncompressed TIFF files and binary PPM files can be mapped
    if they hold 8-bit RGB, need no rotation and store all rows from top to bottom without gaps. Never raises:
    for a damaged file, returns None. A later call of `read_rgb` reports the damage.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            rows, first = 0, image.tile[0].offset
            for codec, (left, top, right, bottom), offset, arguments in image.tile:
                layout, stride, *_ = arguments if isinstance(arguments, tuple) else (arguments, 0)
                plain = codec == "raw" and layout == image.mode == "RGB" and stride in (0, 3 * width)
                follows = offset == first + 3 * width * rows and (left, top, right) == (0, rows, width)
                if not (plain and follows):
                    return None
                rows = bottom
            # the orientation is checked last, because for a PNG file getexif decodes the whole image
            turned = image.getexif().get(Tag.Orientation, 1) in range(2, 9)
            if turned or rows != height:
                return None
        return np.memmap(path, np.uint8, "r", offset=first, shape=(height, width, 3))
    except Exception:  # Pillow raises many kinds of exceptions for damaged files
        return None


def read_class_ids(path, *, largest=255):
    """Return the ids in a PNG file as a PIL image, rotated upright by its EXIF orientation.

    The ids are the file's palette indices, or its greyscale values of 2 to 16 bits without scaling.

    largest: the largest allowed id. 255: the image has the mode L, and greyscale values of 1 bit are refused.
    65535: the image has the mode I (int32), and greyscale values of 1 bit are read as the ids 0 and 255.

    Raises InputError that names the file in these cases: the file is damaged, not readable or not a PNG
    file; it holds colours or an alpha band; its greyscale values have 1 bit and `largest` is 255; an id is
    above `largest`; it has more than MAX_PIXELS pixels.
    """
    return _read(path, MAX_PIXELS, functools.partial(_class_ids, largest=largest))


def pages(path):
    """Return the indices of the full-size pages of a TIFF file, a list of ints; [0] for other formats.

    An index can be passed to `read_rgb` as `page`. GeoTIFF files may also contain pages with reduced copies
    or transparency masks. These pages are left out. Never raises: for a damaged file, returns the pages
    before the damage, or [0] if there are none.
    """
    found = []
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "TIFF":
                for index in range(image.n_frames):
                    image.seek(index)
                    if not image.tag_v2.get(Tag.NewSubfileType, 0) & (REDUCED | TRANSPARENCY_MASK):
                        found.append(index)
    except Exception:
        pass
    return found or [0]


def require_same_size(photo, mask, mask_file):
    """Raise InputError unless a photo and its mask, PIL images, have the same size.

    mask_file: the path of the mask, which the message names.
    """
    if photo.size == mask.size:
        return
    reason = ""
    if photo.info.get("turned") and photo.size == mask.size[::-1]:
        reason = " because its EXIF orientation turns the photo: turn the mask as well, or"
    raise InputError(
        f"{mask_file}: {mask.width}x{mask.height} pixels, but its photo has"
        f" {photo.width}x{photo.height}{reason or ';'} replace one of them."
    )


def _rgb(image, deep, *, path, white_level):
    """Convert an opened PIL image to mode RGB and rotate it upright; return a PIL image.

    deep: True if the image has more than 8 bits per sample. path, white_level: see `read_rgb`.
    """
    if deep:
        page = image.tell()
        image = samples.to_8_bits(path, lambda: open_page(path, page), white_level)
    else:
        ImageOps.exif_transpose(image, in_place=True)
        _remark_alpha(path, image)
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy an RGB image


def _class_ids(image, deep, *, largest):
    """Convert an opened PIL image to a PIL image of ids and rotate it upright; return the image of ids.

    largest: the largest allowed id, 255 or 65535. The image of ids has mode L if `largest` is 255, otherwise
    mode I (int32). deep: not used here, but `_read` passes it. Raises ValueError if the file does not hold
    ids, or if an id is above `largest`.
    """
    ImageOps.exif_transpose(image, in_place=True)
    # only PNG is accepted: other formats may store colours, or blend neighbouring ids by lossy compression
    if image.format != "PNG" or image.mode not in ID_MODES or (image.mode == "1" and largest == 255):
        raise ValueError(
            "a mask of class ids must be a PNG file with one number per pixel, but this file is"
            f" {image.format} {image.mode}"
        )
    ids = np.asarray(image.convert("L") if image.mode == "1" else image)
    if ids.max(initial=0) > largest:
        raise ValueError(f"it holds class id {ids.max()}, but the largest possible id is {largest}")
    if image.mode == "L":
        with open(image.filename, "rb") as file:
            bits = file.read(25)[-1]  # byte 24 of a PNG file holds the bits per pixel
        ids = ids // (255 // (2**bits - 1))  # Pillow scales 2-bit and 4-bit values to 0..255
    return Image.fromarray(ids.astype(np.uint8) if largest == 255 else ids.astype(np.int32))


def open_page(path, page):
    """Open a page of an image file; return a PIL image, not yet decoded. page: see `read_rgb`."""
    image = Image.open(path, formats=FORMATS)
    if page is None and image.format == "TIFF":
        page = pages(path)[0]
    if page:
        image.seek(page)
    return image


def _read(path, max_pixels, convert, page=None):
    """Check an image file, open one of its pages, and return what `convert` makes of the page.

    path, max_pixels, page: see `read_rgb`. convert: a function (PIL image, deep) -> PIL image, such as `_rgb`
    with its other arguments bound. deep: True if the image has more than 8 bits per sample.

    Calls `remarks.add` and raises exceptions in the cases that the docstring of `read_rgb` lists.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a file")  # a folder, or a pipe that would block the reader
        with Image.open(path, formats=FORMATS) as image:
            image.verify()  # checks a PNG's checksums, which decoding ignores
        with open_page(path, page) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            _remark_pages(path, image)
            _remark_bands(path, image)
            # is_deep needs an undecoded image, so it is called before getexif, which decodes a PNG file
            deep = samples.is_deep(image)
            turned = image.getexif().get(Tag.Orientation, 1) in range(2, 9)
            converted = convert(image, deep)
        if turned:
            remarks.add(
                "turned",
                f"{path}: turned upright by its EXIF orientation; photo and mask must match when both are"
                " upright",
            )
            converted.info["turned"] = True
        return converted
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: has more pixels than can be decoded at once ({max_pixels:,}); scale it down."
        ) from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct the path.") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable.") from None
    except Exception as error:  # Pillow raises many kinds of exceptions for damaged files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in files.PASSING:
            raise
        raise InputError(
            f"{path}: not a readable image ({_reason(path, error)}); replace or remove the file."
        ) from None


def _remark_pages(path, image):
    """Call `remarks.add` if the image is the first of several full-size pages or frames."""
    if image.format in ("TIFF", "GIF", "PNG", "WEBP") and getattr(image, "is_animated", False):
        found = pages(path) if image.format == "TIFF" else range(image.n_frames)
        if len(found) > 1 and image.tell() == found[0]:
            remarks.add("pages", f"{path}: only the first of its {len(found)} pages or frames is used")


def _remark_bands(path, image):
    """Call `remarks.add` if a TIFF file has bands other than colour and alpha, such as near infrared."""
    tags = getattr(image, "tag_v2", {})
    bands = tags.get(Tag.SamplesPerPixel, 1)
    colours = COLOUR_BANDS.get(tags.get(Tag.PhotometricInterpretation))
    if colours and bands > colours + sum(kind in ALPHA for kind in tags.get(Tag.ExtraSamples, ())):
        used = f"the first {colours}" if colours > 1 else "the first"
        remarks.add(f"bands {bands}", f"{path}: only {used} of its {bands} bands are used")


def _remark_alpha(path, image):
    """Call `remarks.add` if some pixels are transparent.

    The colours of transparent pixels are used, although image viewers do not show them.
    """
    if image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema()[0] < 255:
        remarks.add("alpha", f"{path}: the colours of its transparent pixels are used too")


def _reason(path, error):
    """Return a text that describes the fault of a file.

    The text is the decoder's error message, cut off where the file's path begins, or the name of the error's
    class if nothing is left. If no decoder recognises the file, the text describes the samples of a TIFF
    file, or lists the accepted formats.
    """
    if isinstance(error, Image.UnidentifiedImageError):
        return _unusual_tiff(path) or f"its format is none of {', '.join(FORMATS)}"
    return str(error).split(str(path))[0].rstrip(" '\":") or type(error).__name__


def _unusual_tiff(path):
    """Return a text that describes the samples of a TIFF file that Pillow cannot read.

    Returns None if the file is not a TIFF file or if its header is damaged.
    """
    try:
        with open(path, "rb") as file:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            bits = directory.get(Tag.BitsPerSample, (1,))
            bands, formats = directory.get(Tag.SamplesPerPixel, 1), directory.get(Tag.SampleFormat, (1,))
    except Exception:
        return None
    kinds = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex integer", 6: "complex"}
    kind = kinds.get(formats[0], f"format {formats[0]}")
    return f"a TIFF of {bands} bands with {bits[0]}-bit {kind} samples; save it as 8-bit RGB or greyscale"
