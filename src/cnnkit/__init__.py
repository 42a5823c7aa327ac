"""The classic convolutional networks as one kit.

`fit` trains a network, `load` loads a trained one, `evaluate` measures it on a test set, `create` builds a network.

The packages, lowest floor first: `ops` (operators from scratch and fast ones) and `figures` (drawing); `nets`
(networks), `data` (images to batches) and `lanes` (small networks as C++ code); `train` (the training loop); `anatomy`
(the structure of a network) and `deploy` (prediction with a trained network); `explain` (feature maps, filters,
effective receptive fields); `experiment` (whole runs); `report` (comparing runs).
Each is imported at its first use; `__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
