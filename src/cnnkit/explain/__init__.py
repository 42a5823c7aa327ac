"""What a net looks at: its feature maps for an image, its filters, the pixels that weigh in an output."""

from cnnkit.explain.effective import effective_receptive_field
from cnnkit.explain.features import feature_maps, filters

__all__ = ["effective_receptive_field", "feature_maps", "filters"]
