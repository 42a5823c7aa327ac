"""Drawing: contact and sprite sheets, curves, plots for HTML pages, SVG elements, HTML tables.

It depends on `core` only. Each name of `__init__.pyi` is imported at its first use, so that plots are drawn without
torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
