"""Limits of inputs and settings: larger ones are refused before memory is allocated.

The limits of settings are far beyond practical use; they keep a typo from using all memory or running forever.
"""

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "DEFLATE_RATIO",
    "MAX_ARCHIVE_FILES",
    "MAX_BATCH",
    "MAX_CANVAS",
    "MAX_CHANNELS",
    "MAX_CLASSES",
    "MAX_COUNT",
    "MAX_DOWNLOAD_BYTES",
    "MAX_EPOCHS",
    "MAX_IDX_BYTES",
    "MAX_IMAGES",
    "MAX_IMAGE_BYTES",
    "MAX_PIXELS",
    "MAX_RECORD_BYTES",
    "MAX_SHARDS",
    "MAX_SHARD_MEGABYTES",
    "MAX_TEXT_BYTES",
    "MAX_WEIGHT_BYTES",
    "MAX_WORKERS",
]

DEFAULT_MAX_PIXELS = 50_000_000  # of a decoded image, unless the user allows more
MAX_PIXELS = 2**31 - 1  # that a user can allow
MAX_CANVAS = 2**13  # height and width that images are resized to
MAX_CHANNELS = 2**16
MAX_CLASSES = 10**6
MAX_EPOCHS = 10**6
MAX_IMAGES = 2**31 - 1  # in a training batch; also of steps
MAX_BATCH = 2**16  # images predicted at once
MAX_WORKERS = 1024  # threads
MAX_COUNT = 2**53  # of anything: the integers that a float represents exactly
DEFLATE_RATIO = 1032  # the largest that deflate can reach
MAX_TEXT_BYTES = 2**28  # of settings, tables, descriptions
MAX_IMAGE_BYTES = 2**30
MAX_IDX_BYTES = 2**31  # of the values: four times the largest published set
MAX_DOWNLOAD_BYTES = MAX_WEIGHT_BYTES = 2**32
MAX_RECORD_BYTES = 2**33  # in the cache
MAX_ARCHIVE_FILES = 2_000_000
MAX_SHARDS = 10**6
MAX_SHARD_MEGABYTES = 10**6
