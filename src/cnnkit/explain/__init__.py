"""Explanations of a network: feature maps, filters and effective receptive fields."""

from cnnkit.explain.effective import effective_receptive_field
from cnnkit.explain.features import feature_maps, filters

__all__ = ["effective_receptive_field", "feature_maps", "filters"]
