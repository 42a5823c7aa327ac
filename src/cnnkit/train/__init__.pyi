from .config import TrainConfig
from .distributed import ALONE, World
from .evaluate import Metrics, evaluate
from .loop import Trainer
from .observe import EpochRecord, Observer, StepRecord
from .optimizer import initialise
from .recipes import RECIPES
from .record import Run

__all__ = [
    "ALONE",
    "RECIPES",
    "EpochRecord",
    "Metrics",
    "Observer",
    "Run",
    "StepRecord",
    "TrainConfig",
    "Trainer",
    "World",
    "evaluate",
    "initialise",
]
