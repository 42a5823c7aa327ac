"""From images to batches: formats of data sets, storages, splits, augmentation, preprocessing."""

from cnnkit.data.augment.batch import Augment
from cnnkit.data.batches import Augmentation, Batches
from cnnkit.data.datasets import DATASETS, load_named
from cnnkit.data.folder.dataset import ImageFolder, Split, load_folder, scan_folder
from cnnkit.data.idx import read_idx
from cnnkit.data.images.decode import read_image, write_image
from cnnkit.data.images.pixels import to_pixels
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.load import is_handed_in, keep, load_dataset, open_dataset, place, renumbered, with_parts
from cnnkit.data.preprocess import Preprocess, channel_statistics, resize_and_crop, resize_with_pad
from cnnkit.data.reading import Reading
from cnnkit.data.shards.dataset import load_shards
from cnnkit.data.shards.images import ShardImages
from cnnkit.data.shards.index import is_shards
from cnnkit.data.split import stratified_split
from cnnkit.data.storage import InMemory, Storage

__all__ = [
    "DATASETS",
    "Augment",
    "Augmentation",
    "Batches",
    "Dataset",
    "ImageFolder",
    "ImageSet",
    "InMemory",
    "Preprocess",
    "Reading",
    "ShardImages",
    "Split",
    "Storage",
    "channel_statistics",
    "is_handed_in",
    "is_shards",
    "keep",
    "load_dataset",
    "load_folder",
    "load_named",
    "load_shards",
    "open_dataset",
    "place",
    "read_idx",
    "read_image",
    "renumbered",
    "resize_and_crop",
    "resize_with_pad",
    "scan_folder",
    "stratified_split",
    "to_pixels",
    "with_parts",
    "write_image",
]
