"""The classic convolutional networks as one kit.

`fit` trains a network, `load` loads a trained one, `evaluate` evaluates it on a test set, `create` builds a network.

The packages, from the lowest dependency layer up: `ops` (operators, from scratch and fast), `figures` (drawing) and
`metrics` (scores with intervals, calibration); `nets` (networks), `data` (images to batches) and `lanes` (the C++
engine for small networks); `train` (the training loop); `anatomy` (the structure of a network) and `deploy` (prediction
with a trained network); `explain` (feature maps, filters, attributions); `experiment` (whole runs); `report` (reports
on runs). Each is imported at its first use; `__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
