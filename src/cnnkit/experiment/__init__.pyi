from .calibrating import about_temperature, calibrate
from .config import RunConfig, merge, resolve
from .evaluating import evaluate, evaluation_of
from .evaluation import Evaluation
from .fitting import fit
from .history import History, read_metrics
from .images import images_of
from .predictions import SplitPredictions, read_predictions
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
    "SplitPredictions",
    "about_temperature",
    "calibrate",
    "evaluate",
    "evaluation_of",
    "fit",
    "images_of",
    "merge",
    "read_metrics",
    "read_predictions",
    "recipe",
    "resolve",
]
