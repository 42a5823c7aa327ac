"""Look into a net: shapes, parameters, MACs and receptive fields, per stage and per layer."""

from cnnkit.anatomy.draw import draw
from cnnkit.anatomy.receptive import Receptive
from cnnkit.anatomy.trace import Anatomy, Part, trace

__all__ = ["Anatomy", "Part", "Receptive", "draw", "trace"]
