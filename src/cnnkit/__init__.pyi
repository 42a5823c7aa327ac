from . import anatomy, data, deploy, nets, ops, train
from .nets import create

__all__ = ["__version__", "anatomy", "create", "data", "deploy", "nets", "ops", "train"]

__version__: str
