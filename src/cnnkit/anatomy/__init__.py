"""The structure of a network: shapes, parameters, MACs, memory and receptive fields of each stage and layer."""

from cnnkit.anatomy.draw import draw
from cnnkit.anatomy.receptive import Receptive
from cnnkit.anatomy.trace import Anatomy, Part, trace

__all__ = ["Anatomy", "Part", "Receptive", "draw", "trace"]
