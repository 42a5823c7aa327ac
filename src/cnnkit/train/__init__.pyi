from .autotune.choose import plan_training
from .callbacks import Callback, EpochRecord, StepRecord, StopTraining, TrainRecord
from .config import TrainConfig
from .distributed import ALONE, World
from .loop import Trainer
from .metrics import Metrics, evaluate
from .optimizer import initialise

__all__ = [
    "ALONE",
    "Callback",
    "EpochRecord",
    "Metrics",
    "StepRecord",
    "StopTraining",
    "TrainConfig",
    "TrainRecord",
    "Trainer",
    "World",
    "evaluate",
    "initialise",
    "plan_training",
]
