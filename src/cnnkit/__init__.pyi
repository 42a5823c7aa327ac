from . import anatomy, data, deploy, nets, ops, report, train
from .nets import create

__all__ = ["__version__", "anatomy", "create", "data", "deploy", "nets", "ops", "report", "train"]

__version__: str
