"""How much an input may take, and how much a user may ask for: more is an error before any memory is taken.

What a user may ask for is far beyond any use; it keeps a wrong number from taking all memory, or time without end.
"""

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MAX_BATCH",
    "MAX_CANVAS",
    "MAX_CHANNELS",
    "MAX_CLASSES",
    "MAX_COUNT",
    "MAX_EPOCHS",
    "MAX_IMAGES",
    "MAX_PIXELS",
    "MAX_WORKERS",
]

DEFAULT_MAX_PIXELS = 50_000_000  # of an image as it is decoded, unless the user allows more
MAX_PIXELS = 2**31 - 1  # that the user can allow
MAX_CANVAS = 2**13  # pixels in height and width that images are resized to
MAX_CHANNELS = 2**16
MAX_CLASSES = 10**6
MAX_EPOCHS = 10**6
MAX_IMAGES = 2**31 - 1  # of a batch that is trained on, and steps
MAX_BATCH = 2**16  # images that a network predicts at once
MAX_WORKERS = 1024  # threads
MAX_COUNT = 2**53  # of anything: what a float holds exactly
