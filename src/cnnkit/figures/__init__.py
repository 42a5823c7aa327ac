"""What rooms draw with: contact sheets, curves, pieces of SVG, tables in HTML. Only `core` lies below.

Each name of `__init__.pyi` is imported when it is first used: curves are drawn without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
