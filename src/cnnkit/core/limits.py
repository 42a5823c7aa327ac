"""How much an input may take, and how much a user may ask for: more is an error before any memory is taken."""

__all__ = ["MAX_PIXELS", "MOST_BATCH", "MOST_CANVAS", "MOST_PIXELS", "MOST_WORKERS"]

MAX_PIXELS = 50_000_000  # of an image as it is decoded, unless the user allows more
MOST_PIXELS = 2**31 - 1  # that the user can allow
MOST_CANVAS = 1 << 14  # pixels in height and width that images are resized to
MOST_WORKERS = 1024  # threads
MOST_BATCH = 1 << 16  # images that a network predicts at once
