"""Preprocessing of images for published weights."""

from cnnkit.data.preprocess import Preprocess
from cnnkit.nets.pretrained import published_weights
from cnnkit.nets.zoo import full_name

__all__ = ["published_preprocess"]


def published_preprocess(name: str, in_channels: int = 3) -> Preprocess:
    """Return the preprocessing of the published weights of `name`: resize, centre crop and normalisation.

    If `in_channels` is not 3, all channels use the average of the three channels' mean and std. Raises UsageError for
    a network without published weights.
    """
    weights = published_weights(full_name(name))
    mean, std = weights.mean, weights.std
    if in_channels != len(mean):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return Preprocess((weights.crop, weights.crop), mean, std, weights.resize)
