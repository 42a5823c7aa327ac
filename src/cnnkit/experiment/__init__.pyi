from .config import RunConfig, merge, resolve
from .evaluation import Evaluation, evaluate
from .fitting import fit
from .history import History, read_metrics
from .recipes import RECIPES, recipe
from .run import Run
from .run_folder import RunFolder
from .training import RunInterrupted

__all__ = [
    "RECIPES",
    "Evaluation",
    "History",
    "Run",
    "RunConfig",
    "RunFolder",
    "RunInterrupted",
    "evaluate",
    "fit",
    "merge",
    "read_metrics",
    "recipe",
    "resolve",
]
