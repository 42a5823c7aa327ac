"""When a run stops or saves a checkpoint: patience, `max_time`, callbacks, signals, checkpoint intervals."""

import time
from typing import NamedTuple

from cnnkit.train.callbacks import Callbacks
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import World

__all__ = ["Pause", "Stopping"]

AGREE_STEPS = 8  # several ranks agree on whether to stop once in so many steps, as each agreement costs an all-gather


class Pause(NamedTuple):
    """A checkpoint is due, and after it, with a `reason` or `interrupted` by a signal, the end of the run."""

    reason: str = ""
    interrupted: bool = False


class Stopping:
    """Decides between epochs and steps whether the run stops; all ranks of `world` get the same answer."""

    def __init__(self, config: TrainConfig, world: World, callbacks: Callbacks):
        self.config, self.world, self.callbacks = config, world, callbacks
        self.checkpoint_saved()

    def checkpoint_saved(self) -> None:
        """Restart the interval of `checkpoint_minutes`."""
        self.saved = time.monotonic()

    def before_epoch(self, epoch: int, best_epoch: int | None, seconds: float) -> str:
        """Return why the run stops before `epoch`, if it does; without validation there is no best epoch."""
        patience = self.config.patience
        impatient = patience is not None and best_epoch is not None and epoch - 1 - best_epoch >= patience
        no_better = f"no improvement for {patience} epochs since epoch {best_epoch} (--patience)" if impatient else ""
        return self.world.broadcast(self.callbacks.stop or no_better or self._out_of_time(seconds))

    def after_step(self, step: int, seconds: float, signalled: bool) -> Pause | None:
        """Return what is due before step number `step`; `signalled` says whether this rank has received a signal."""
        config = self.config
        due = config.checkpoint_steps is not None and step % config.checkpoint_steps == 0
        if self.world.size > 1 and step % AGREE_STEPS and not due:
            return None
        minutes = config.checkpoint_minutes
        overdue = minutes is not None and time.monotonic() - self.saved > 60 * minutes
        reason = self.callbacks.stop or self._out_of_time(seconds)
        pause = Pause(reason) if due or overdue or reason else None
        if any(self.world.all_gather(signalled)):
            pause = Pause(interrupted=True)
        return self.world.broadcast(pause)

    def _out_of_time(self, seconds: float) -> str:
        most = self.config.max_time
        over = most is not None and seconds > 60 * most
        return f"time limit of {most:g} minutes (--max-time) reached" if over else ""
