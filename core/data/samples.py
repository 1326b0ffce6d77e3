"""Convert images with more than 8 bits per sample to 8 bits.

A sample is the value of one channel of one pixel. The white level is the sample value of white,
for example 4095 for a sensor with 12 bits.
"""

import sys

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import Base as Tag

from core.data import remarks

MIN_IS_WHITE = 0  # a value of the tag PhotometricInterpretation
SEPARATE_PLANES = 2  # a value of the tag PlanarConfiguration


def is_deep(image):
    """True if a PIL image has more than 8 bits per sample.

    The image must not be decoded yet, because decoding removes the layout of the samples from the image.
    """
    bits = getattr(image, "tag_v2", {}).get(Tag.BitsPerSample, (8,))
    layouts = set(map(_raw_mode, image.tile)) - {"BGR;16"}  # a BMP file of 16 bits per pixel, not per sample
    return image.mode[0] in "IF" or max(bits) > 8 or any(";16" in layout for layout in layouts)


def to_8_bits(path, open_image, white_level):
    """Decode an image file and scale its samples so that white is 255; return a PIL image, mode L or RGB.

    The image is rotated upright by its EXIF orientation. The scaled samples are rounded to integers. If the
    tags of a TIFF file say that sample value 0 is white, the scaled samples are inverted, and white_level is
    the sample value of black.

    path: the path of the file, for the warning about the white level.
    open_image: a function without arguments that opens the file and returns a PIL image, not yet decoded.
    white_level: the sample value of white, an int. 0: the value is detected as the smallest 2**bits - 1 that
    no sample exceeds, where bits is 8 to 16. If bits is below 16, a warning gives the detected value
    (`core.data.remarks`). For PGM files nothing is detected, because their header gives the sample value of
    white.

    Raises ValueError if the file stores 16-bit samples in a layout that Pillow reads with fewer bits, such as
    separate colour planes. Also raises ValueError if white_level is 0 and cannot be detected, because
    the samples have 32 bits, are signed, or are floating-point numbers.
    """
    samples, inverted, known, orientation = _samples(open_image)
    if not white_level:
        white_level = known or _detect_white_level(path, samples)

    def scale(values):
        """Convert sample values to 0..255, uint8. Values above white_level are treated as white_level."""
        scaled = np.clip(values, 0, white_level) * (255 / white_level)
        return np.rint(255 - scaled if inverted else scaled).astype(np.uint8)

    # 16-bit samples are scaled by a lookup table, which needs less memory than a floating-point image
    is_short = samples.dtype == np.uint16
    image = Image.fromarray(scale(np.arange(2**16))[samples] if is_short else scale(samples))
    image.getexif()[Tag.Orientation] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _detect_white_level(path, samples):
    """Return the smallest 2**bits - 1 that no sample exceeds, where bits is at least 8.

    samples: the array from `_samples`. If bits is below 16, calls `remarks.add` with a sentence that names
    `path` and the result. Raises ValueError unless the samples are uint16.
    """
    low, high = samples.min(), samples.max()
    if samples.dtype != np.uint16:
        raise ValueError(
            f"{samples.dtype} samples from {low:g} to {high:g}, for which the value of white is unknown;"
            " give --white_level, or save the file with 8 bits"
        )
    bits = max(8, int(high).bit_length())
    if bits < 16:
        remarks.add(
            f"white level {bits}",
            f"{path}: 16-bit samples up to {high} are read as {bits} bits, white is {2**bits - 1};"
            " give --white_level=N if the sensor's white is another value",
        )
    return 2**bits - 1


def _samples(open_image):
    """Decode an image file; return (samples, inverted, white level, EXIF orientation).

    open_image: see `to_8_bits`. samples: uint16, int32 or float32, [H, W] or [H, W, 3]. inverted: True if
    sample value 0 is white. white level: the sample value of white for a PGM file; 0 for other files, in
    which this value is unknown.
    """
    with open_image() as image:
        tags = getattr(image, "tag_v2", {})
        inverted = tags.get(Tag.PhotometricInterpretation) == MIN_IS_WHITE
        planar = tags.get(Tag.PlanarConfiguration) == SEPARATE_PLANES
        raw, mode, kind = [_raw_mode(tile) for tile in image.tile], image.mode, image.format
        pgm_white = _pgm_white(image.tile[0])
        if mode[0] not in "IF" and (planar or mode not in ("RGB", "RGBA") or raw[0].startswith("LA")):
            raise ValueError(f"16 bits per sample in a layout that is not supported ({kind} {raw[0]})")
        image.load()
        orientation = image.getexif().get(Tag.Orientation, 1)
        if mode == "I" and kind == "PPM":  # Pillow has scaled the samples so that white is 65535
            stored = np.rint(np.asarray(image) * (pgm_white / 65535)).astype(np.uint16)
            return stored, False, pgm_white, orientation
        if mode[0] in "IF":
            samples = np.asarray(image)
            return samples.astype(samples.dtype.newbyteorder("=")), inverted, 0, orientation
        high = np.asarray(image)[..., :3].astype(np.uint16)
    # Pillow decodes only the high byte of 16-bit colours, so a second pass decodes the low byte
    with open_image() as image:
        image.tile = [tile._replace(args=_low_byte_arguments(tile)) for tile in image.tile]
        image.load()
        return high * 256 + np.asarray(image)[..., :3], False, 0, orientation


def _pgm_white(tile):
    """Return the sample value of white that the header of a PGM file gives.

    tile: an element of the PIL image's list `tile`. For a PGM file of more than 8 bits, Pillow uses the
    decoder "raw" only if the value is 65535. Other decoders have the value as their last argument. The result
    has no meaning for files of other formats.
    """
    return tile.args[-1] if tile.codec_name in ("ppm", "ppm_plain") else 65535


def _low_byte_arguments(tile):
    """Return the decoder arguments with which Pillow reads the low byte of each 16-bit sample of a tile.

    tile: an element of the `tile` list of a PIL image. Pillow finds the high byte of a sample from the byte
    order in the raw mode (see `_raw_mode`). With the opposite byte order, Pillow reads the low byte instead.
    """
    order = _raw_mode(tile)[-1]
    if order == "N":  # native byte order
        order = "L" if sys.byteorder == "little" else "B"
    raw_mode = _raw_mode(tile)[:-1] + {"L": "B", "B": "L"}[order]
    return (raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode


def _raw_mode(tile):
    """Return Pillow's name for the layout of a tile's samples in the file, such as "RGB;16L".

    Returns "" if Pillow gives no name. tile: an element of the `tile` list of a PIL image.
    """
    raw_mode = tile.args[0] if isinstance(tile.args, tuple) else tile.args
    return raw_mode if isinstance(raw_mode, str) else ""
