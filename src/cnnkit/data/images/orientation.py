"""The orientation of an image, for reading headers and for decoding.

EXIF blocks are not read by Pillow, which warns of corrupt ones and reads all of their tags.
"""

import re
import struct

from PIL import Image, TiffImagePlugin

__all__ = ["ORIENTATION", "orientation_of", "stored_orientation", "upright"]

ORIENTATION = 0x0112  # the tag, in EXIF as in TIFF
RAW_EXIF, RAW_LINES = "Raw profile type exif", 3  # a block as hexadecimal text, and the lines before it
XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
ENTRY, SHORT, LONG = 12, 3, 4  # bytes of an entry, and the types that its value may have
UPRIGHT = ("TIFF", "HEIF")  # formats whose decoders apply the orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """Return the orientation that is still to be applied to a PIL image: 2 to 8, or 1 for upright.

    It is read from EXIF, else from XMP. A corrupt block is ignored, and any other value means upright.
    """
    return 1 if image.format in UPRIGHT else stored_orientation(image)


def stored_orientation(image: Image.Image) -> int:
    """Return the orientation in the file, even if its decoder applies it: 2 to 8, or 1 for upright."""
    info = image.info
    found = image.tag_v2.get(ORIENTATION) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    if found is None:
        found = _in_exif(_bytes(info.get("exif")) or _from_text(_bytes(info.get(RAW_EXIF))))
    if found is None and (said := XMP.search(_bytes(info.get("XML:com.adobe.xmp") or info.get("xmp")))):
        found = int(said[1])
    return found if isinstance(found, int) and found in TURNS else 1


def upright(image: Image.Image, orientation: int | None = None) -> Image.Image:
    """Return a PIL image turned upright, by `orientation` or its own."""
    turn = TURNS.get(orientation_of(image) if orientation is None else orientation)
    return image if turn is None else image.transpose(turn)


def _in_exif(block: bytes) -> int | None:
    """Return the orientation in an EXIF block if it is a single integer, 1 if it is anything else; None if missing."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    try:
        if order is None:
            return None
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + count * ENTRY, ENTRY):
            tag, kind, values = struct.unpack_from(f"{order}HHI", block, place)
            if tag == ORIENTATION:
                form = {SHORT: "H", LONG: "I"}.get(kind) if values == 1 else None
                return struct.unpack_from(f"{order}{form}", block, place + 8)[0] if form else 1
    except struct.error:  # truncated
        pass
    return None


def _from_text(text: bytes) -> bytes:
    """Return the EXIF block that ImageMagick has written as hexadecimal text; b"" if it is invalid."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[RAW_LINES:]).decode("ascii"))
    except ValueError:
        return b""


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode(errors="replace")
