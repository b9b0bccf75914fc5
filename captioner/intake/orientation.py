"""Which way up a photo is to be shown: the EXIF orientation, applied to its pixels."""

import struct

from PIL import Image

# EXIF 2.32, tag 0x0112: how to turn the stored pixels so that they are upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG, _SHORT = 0x0112, 3


def upright(image: Image.Image, exif: bytes) -> tuple[Image.Image, bool]:
    """The image as it is meant to be seen, and whether its width and height changed places for that.

    `exif`: a block of it, with or without the header of a JPEG's segment; none, or a damaged one, turns nothing.
    Not left to Pillow, which reads all tags, and warns about each that is broken, for the one that matters.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = ">" if tiff.startswith(b"MM") else "<"
    orientation = 1
    try:
        (directory,) = struct.unpack_from(order + "L", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHLH", tiff, entry)
            if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
                orientation = value
                break
    except struct.error:  # cut off: no reason to refuse the pixels
        pass
    if orientation not in _TURNS:
        return image, False
    return image.transpose(_TURNS[orientation]), orientation >= 5
