"""The classic convolutional networks as one kit.

`fit` trains, `load` opens what was trained, `evaluate` measures it, `create` builds a network of the zoo.

The rooms, lowest first: `ops` (the operators from scratch and their fast twins) and `figures` (what rooms draw with);
`nets` (the networks), `data` (images to batches) and `lanes` (small networks at the speed of the silicon); `train`
(batches to a trained net); `anatomy` (the structure of a net) and `deploy` (a trained net in use); `explain` (what a
net looks at); `experiment` (a run from start to end); `report` (runs compared).
Each is imported when it is first used; `__init__.pyi` lists what there is.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
