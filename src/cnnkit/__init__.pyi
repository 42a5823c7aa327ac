from . import anatomy, data, deploy, experiment, explain, figures, lanes, metrics, nets, ops, report, train
from .deploy import load
from .experiment import evaluate, fit
from .nets import create

__all__ = [
    "__version__",
    "anatomy",
    "create",
    "data",
    "deploy",
    "evaluate",
    "experiment",
    "explain",
    "figures",
    "fit",
    "lanes",
    "load",
    "metrics",
    "nets",
    "ops",
    "report",
    "train",
]

__version__: str
