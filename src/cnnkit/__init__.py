"""The classic convolutional networks as one kit.

The rooms, lowest first: `ops` (the operators by hand), `nets` (the networks), `data` (images to batches),
`train` (batches to a trained net), `anatomy` (look into a net), `deploy` (carry a trained net around) and `report`
(pictures and numbers of runs).
Each is imported when it is first used; `__init__.pyi` lists what there is.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
