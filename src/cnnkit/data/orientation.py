"""Which way up an image is, by its EXIF orientation."""

from PIL import Image, TiffImagePlugin

__all__ = ["EXIF", "ORIENTATION", "orientation_of", "upright"]

EXIF, ORIENTATION = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}, 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, that is still to be undone; a damaged one counts as none."""
    if not EXIF & picture.info.keys() or isinstance(picture, TiffImagePlugin.TiffImageFile):  # Pillow turns TIFFs
        return 1
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged bytes bring forth errors of any type
        return 1


def upright(picture: Image.Image, orientation: int | None = None) -> Image.Image:
    """Return an image of Pillow's, turned as its EXIF orientation says, or as `orientation` does."""
    turn = TURNS.get(orientation_of(picture) if orientation is None else orientation)
    return picture if turn is None else picture.transpose(turn)
