"""Runs: the network, data and training that the command line, notebooks and sweeps share.

Each name of `__init__.pyi` is imported at its first use, so that settings are read without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
