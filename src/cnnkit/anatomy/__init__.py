"""Look into a net: shapes, parameters, MACs and receptive fields, per stage and per layer."""

from cnnkit.anatomy.draw import draw
from cnnkit.anatomy.effective import effective_receptive_field
from cnnkit.anatomy.features import feature_maps, filters
from cnnkit.anatomy.receptive import Receptive
from cnnkit.anatomy.sheet import contact_sheet, stack_sheets
from cnnkit.anatomy.trace import Anatomy, Part, trace

__all__ = [
    "Anatomy",
    "Part",
    "Receptive",
    "contact_sheet",
    "draw",
    "effective_receptive_field",
    "feature_maps",
    "filters",
    "stack_sheets",
    "trace",
]
