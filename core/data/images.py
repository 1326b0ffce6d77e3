"""Read image files as upright 8-bit RGB or class ids, with one-sentence errors.

Formats, EXIF orientation, bit depths and damage are handled here, once for training,
evaluation and prediction.
"""

import functools
import os
import stat
import warnings

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from core.data import remarks, samples
from core.runtime import files
from core.runtime.errors import InputError

# without PostScript, because PostScript files are programs
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of RGB
ORIENTATION = 0x0112  # EXIF tag
SUBFILE_TYPE, REDUCED, TRANSPARENCY_MASK = 254, 1, 4  # TIFF tag for the kind of a page, and two flags
PHOTOMETRIC, BANDS, EXTRA_BANDS, ALPHA = 262, 277, 338, (1, 2)  # TIFF tags; ALPHA: values for alpha
COLOUR_BANDS = {0: 1, 1: 1, 2: 3}  # photometric interpretation -> bands of grey or RGB

Image.MAX_IMAGE_PIXELS = None  # `_read` refuses larger files
warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's warnings do not name the file


def read_rgb(path, *, max_pixels=MAX_PIXELS, white_level=0, page=0):
    """Return a PIL image, mode RGB, fully decoded and rotated upright by its EXIF orientation.

    Greyscale, palette, CMYK and 16-bit files are converted; alpha is dropped.
    white_level: the sample value of white in files with more than 8 bits per sample; 0 detects
    it and adds a remark. page: index of the page in a file with several pages, see `pages`.
    Decoding needs 4 bytes of memory per pixel, and more during a conversion. Remarks
    (`core.data.remarks`) name files that were rotated, hold further pages or bands, have
    transparent pixels, or whose white level was detected.

    Raises InputError that names the file if it is damaged, not an image, not readable or has
    more than max_pixels; MemoryError or OSError if the cause is the machine, not the file.
    """
    convert = functools.partial(_rgb, path=path, white_level=white_level, page=page)
    return _read(path, max_pixels, convert, page)


def map_rgb(path):
    """Memory-map a file of uncompressed upright 8-bit RGB: uint8 [H, W, 3]; None for other files.

    Uncompressed TIFF and binary PPM files can be mapped if their rows are stored from top to
    bottom. Never raises: `read_rgb` reports what is wrong with a file.
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
            # checked last, because getexif decodes PNG files
            turned = image.getexif().get(ORIENTATION, 1) != 1
            if turned or rows != height:
                return None
        return np.memmap(path, np.uint8, "r", offset=first, shape=(height, width, 3))
    except Exception:  # Pillow raises many kinds of exceptions for damaged files
        return None


def read_class_ids(path):
    """Return a PIL image, mode L, of the class ids in a PNG file, rotated upright by its EXIF orientation.

    Greyscale values of 2 to 16 bits and palette indices are used as ids without scaling.
    Raises InputError that names the file in the cases of `read_rgb`, for colours, and for ids above 255.
    """
    return _read(path, MAX_PIXELS, functools.partial(_class_ids, largest=255), page=0)


def read_wide_class_ids(path):
    """Return the class ids of a PNG file, int32 [H, W], like `read_class_ids` but up to 65535.

    In a file with 1 bit per pixel the ids are 0 and 255.
    """
    return np.asarray(_read(path, MAX_PIXELS, functools.partial(_class_ids, largest=2**16 - 1), page=0))


def pages(path):
    """Return the indices of the full-size pages of a TIFF file, for `read_rgb`; [0] for other files.

    Reduced copies and transparency masks, which GeoTIFF files may contain, are left out. Never
    raises: for a damaged file, the pages before the damage are returned.
    """
    found = []
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "TIFF":
                for index in range(image.n_frames):
                    image.seek(index)
                    if not image.tag_v2.get(SUBFILE_TYPE, 0) & (REDUCED | TRANSPARENCY_MASK):
                        found.append(index)
    except Exception:
        pass
    return found or [0]


def require_same_size(photo, mask, mask_file):
    """Raise InputError unless a photo and its mask, PIL images, have the same size."""
    if photo.size == mask.size:
        return
    reason = ""
    if photo.info.get("turned") and photo.size == mask.size[::-1]:
        reason = " because its EXIF orientation turns it: turn the mask as well, or"
    raise InputError(
        f"{mask_file}: {mask.width}x{mask.height} pixels, but its photo has"
        f" {photo.width}x{photo.height}{reason or ';'} replace one of them."
    )


def _rgb(image, deep, *, path, white_level, page):
    if deep:
        image = samples.to_8_bits(path, lambda: _open(path, page), white_level)
    else:
        ImageOps.exif_transpose(image, in_place=True)
        _remark_alpha(path, image)
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy


def _class_ids(image, deep, *, largest):
    ImageOps.exif_transpose(image, in_place=True)
    modes = ("L", "P", "I;16", "I") if largest == 255 else ("L", "P", "I;16", "I", "1")
    # other formats may blend ids (lossy compression) or store colours
    if image.format != "PNG" or image.mode not in modes:
        raise ValueError(
            "a mask of class ids must be a PNG file with one number per pixel, but this file is"
            f" {image.format} {image.mode}"
        )
    ids = np.asarray(image.convert("L") if image.mode == "1" else image)
    if ids.max(initial=0) > largest:
        raise ValueError(f"it holds class id {ids.max()}, but the largest possible id is {largest}")
    if image.mode == "L":
        with open(image.filename, "rb") as file:
            bits = file.read(25)[-1]
        ids = ids // (255 // (2**bits - 1))  # Pillow scales 2-bit and 4-bit values to 0..255
    return Image.fromarray(ids.astype(np.uint8) if largest == 255 else ids.astype(np.int32))


def _open(path, page):
    image = Image.open(path, formats=FORMATS)
    if page:
        image.seek(page)
    return image


def _read(path, max_pixels, convert, page):
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a file")  # a folder, or a pipe that would block the reader
        with Image.open(path, formats=FORMATS) as image:
            image.verify()  # checks a PNG's checksums, which decoding ignores
        with _open(path, page) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            _remark_pages(path, image, page)
            _remark_bands(path, image)
            deep = samples.is_deep(image)  # must precede getexif, which decodes PNG files
            turned = image.getexif().get(ORIENTATION, 1) != 1
            converted = convert(image, deep)
        if turned:
            remarks.add("turned", f"{path}: turned upright by its EXIF orientation; its mask must be too")
            converted.info["turned"] = True
        return converted
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: has more pixels than can be decoded at once ({max_pixels:,}); scale it down."
        ) from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable.") from None
    except Exception as error:  # Pillow raises many kinds of exceptions for damaged files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in files.PASSING:
            raise
        raise InputError(
            f"{path}: not a readable image ({_reason(path, error)}); replace or remove the file."
        ) from None


def _remark_pages(path, image, page):
    if page == 0 and image.format in ("TIFF", "GIF", "PNG", "WEBP") and getattr(image, "is_animated", False):
        count = len(pages(path)) if image.format == "TIFF" else image.n_frames
        if count > 1:
            remarks.add("pages", f"{path}: only the first of its {count} pages or frames is used")


def _remark_bands(path, image):
    """Add a remark if a TIFF file has further bands, such as near infrared, beyond colour and alpha."""
    tags = getattr(image, "tag_v2", {})
    bands, colours = tags.get(BANDS, 1), COLOUR_BANDS.get(tags.get(PHOTOMETRIC))
    if colours and bands > colours + sum(kind in ALPHA for kind in tags.get(EXTRA_BANDS, ())):
        used = f"the first {colours}" if colours > 1 else "the first"
        remarks.add(f"bands {bands}", f"{path}: only {used} of its {bands} bands are used")


def _remark_alpha(path, image):
    """Add a remark if pixels are transparent: their colours are used, although viewers hide them."""
    if image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema()[0] < 255:
        remarks.add("alpha", f"{path}: the colours of its transparent pixels are used too")


def _reason(path, error):
    """Return what is wrong with a file, without its path, from the exception that its decoder raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return _unusual_tiff(path) or f"none of {', '.join(FORMATS)}"
    return str(error).split(str(path))[0].rstrip(" '\"") or type(error).__name__


def _unusual_tiff(path):
    """Describe the layout of a TIFF file that Pillow cannot read; None if the file is no TIFF."""
    try:
        with open(path, "rb") as file:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            bits = directory.get(258, (1,))
            bands, formats = directory.get(277, 1), directory.get(339, (1,))
    except Exception:
        return None
    kinds = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex integer", 6: "complex"}
    kind = kinds.get(formats[0], f"format {formats[0]}")
    return f"a TIFF of {bands} bands with {bits[0]}-bit {kind} samples; save it as 8-bit RGB or greyscale"
