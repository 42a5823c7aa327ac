"""Small networks compiled to C++ for the CPU: one image in each lane of a vector register.

Read `chain` (a network to layers), `layers` (each layer's code), `codegen` (the network's code) with cpp/net.hpp.in,
then `engine` (the calls), which uses `library` (the compiled code) and `optimizer` (torch's options and state).
"""

from cnnkit.lanes.chain import read_chain, unsupported_reason
from cnnkit.lanes.engine import Engine

__all__ = ["Engine", "read_chain", "unsupported_reason"]
