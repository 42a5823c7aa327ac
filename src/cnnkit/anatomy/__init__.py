"""Look into a net: shapes, parameters, MACs and receptive fields, per stage and per layer."""

from cnnkit.anatomy.receptive import Receptive
from cnnkit.anatomy.trace import Anatomy, Layer, Stage, trace

__all__ = ["Anatomy", "Layer", "Receptive", "Stage", "trace"]
