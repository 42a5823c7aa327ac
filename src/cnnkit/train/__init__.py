"""Batches to a trained net: settings, the loop and its callbacks, plans, processes, checkpoints, evaluation.

Each name of `__init__.pyi` is imported when it is first used, so that settings are read without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
