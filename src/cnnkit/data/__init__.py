"""Images to batches: the data sets by name, pictures from files, splits, preprocessing."""

from cnnkit.data.batches import Augmentation, Batches
from cnnkit.data.datasets import DATASETS, load_dataset
from cnnkit.data.folder import ImageFolder, Split, load_folder, scan_folder
from cnnkit.data.idx import read_idx
from cnnkit.data.images import read_image, write_image
from cnnkit.data.imageset import Dataset, ImageSet, StoredImages
from cnnkit.data.preprocess import Preprocess, channel_statistics, resize_and_crop, resize_with_pad
from cnnkit.data.split import stratified_split

__all__ = [
    "DATASETS",
    "Augmentation",
    "Batches",
    "Dataset",
    "ImageFolder",
    "ImageSet",
    "Preprocess",
    "Split",
    "StoredImages",
    "channel_statistics",
    "load_dataset",
    "load_folder",
    "read_idx",
    "read_image",
    "resize_and_crop",
    "resize_with_pad",
    "scan_folder",
    "stratified_split",
    "write_image",
]
