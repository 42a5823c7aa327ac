"""Explanations of a network: feature maps, filters, effective receptive fields, and the pixels that an answer needs."""

from cnnkit.explain.attribution import Attribution
from cnnkit.explain.effective import effective_receptive_field
from cnnkit.explain.explainer import Explainer, attribute, attributions
from cnnkit.explain.features import feature_maps, filters
from cnnkit.explain.methods import METHODS
from cnnkit.explain.sanity import Sanity, sanity

__all__ = [
    "METHODS",
    "Attribution",
    "Explainer",
    "Sanity",
    "attribute",
    "attributions",
    "effective_receptive_field",
    "feature_maps",
    "filters",
    "sanity",
]
