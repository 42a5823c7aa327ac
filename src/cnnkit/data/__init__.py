"""Images to batches: the data sets by name, pictures from files, splits, preprocessing."""

from cnnkit.data.augment import Augment
from cnnkit.data.batches import Augmentation, Batches
from cnnkit.data.datasets import DATASETS, load_dataset
from cnnkit.data.folder import ImageFolder, Split, load_folder, scan_folder
from cnnkit.data.idx import read_idx
from cnnkit.data.images import read_image, write_image
from cnnkit.data.imageset import Dataset, ImageSet, StoredImages
from cnnkit.data.preprocess import Preprocess, channel_statistics, resize_and_crop, resize_with_pad
from cnnkit.data.shard_images import ShardImages
from cnnkit.data.shard_index import is_shards
from cnnkit.data.shards import ShardBatches, load_shards, set_aside
from cnnkit.data.split import stratified_split

__all__ = [
    "DATASETS",
    "Augment",
    "Augmentation",
    "Batches",
    "Dataset",
    "ImageFolder",
    "ImageSet",
    "Preprocess",
    "ShardBatches",
    "ShardImages",
    "Split",
    "StoredImages",
    "channel_statistics",
    "is_shards",
    "load_dataset",
    "load_folder",
    "load_shards",
    "read_idx",
    "read_image",
    "resize_and_crop",
    "resize_with_pad",
    "scan_folder",
    "set_aside",
    "stratified_split",
    "write_image",
]
