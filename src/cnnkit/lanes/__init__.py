"""Small networks at the speed of the silicon: one image in each lane of a register."""

from cnnkit.lanes.chain import read_chain
from cnnkit.lanes.compiler import NO_COMPILER, find_compiler
from cnnkit.lanes.engine import Engine

__all__ = ["NO_COMPILER", "Engine", "find_compiler", "read_chain"]
