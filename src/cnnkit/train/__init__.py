"""Training: settings, the loop and its callbacks, plans, the process group, checkpoints, evaluation.

Each name of `__init__.pyi` is imported at its first use, so that settings can be read without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
