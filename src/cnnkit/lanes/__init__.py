"""Small networks at the speed of the silicon: one image in each lane of a register."""

from cnnkit.lanes.chain import obstacle, read_chain
from cnnkit.lanes.engine import Engine

__all__ = ["Engine", "obstacle", "read_chain"]
