"""Reports: on a run, as one HTML page; on several runs, as tables and curves.

Each name of `__init__.pyi` is imported at its first use, so that runs are listed and plotted without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
