from .config import TrainConfig
from .evaluate import Metrics, evaluate
from .loop import EpochRecord, Observer, StepRecord, Trainer
from .optimizer import initialise
from .recipes import RECIPES
from .record import Run

__all__ = [
    "RECIPES",
    "EpochRecord",
    "Metrics",
    "Observer",
    "Run",
    "StepRecord",
    "TrainConfig",
    "Trainer",
    "evaluate",
    "initialise",
]
