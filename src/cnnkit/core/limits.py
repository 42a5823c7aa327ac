"""How much an input may take, and how much a user may ask for: more is an error before any memory is taken.

What a user may ask for is far beyond any use; it keeps a wrong number from taking all memory, or time without end.
"""

__all__ = [
    "MAX_PIXELS",
    "MOST_BATCH",
    "MOST_CANVAS",
    "MOST_CHANNELS",
    "MOST_CLASSES",
    "MOST_COUNT",
    "MOST_EPOCHS",
    "MOST_IMAGES",
    "MOST_PIXELS",
    "MOST_WORKERS",
]

MAX_PIXELS = 50_000_000  # of an image as it is decoded, unless the user allows more
MOST_PIXELS = 2**31 - 1  # that the user can allow
MOST_CANVAS = 2**13  # pixels in height and width that images are resized to
MOST_CHANNELS = 2**16
MOST_CLASSES = 10**6
MOST_EPOCHS = 10**6
MOST_IMAGES = 2**31 - 1  # of a batch that is trained on, and steps
MOST_BATCH = 2**16  # images that a network predicts at once
MOST_WORKERS = 1024  # threads
MOST_COUNT = 2**53  # of anything: what a float holds exactly
