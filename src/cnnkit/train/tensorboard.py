"""A training run in TensorBoard (the extra `track`): `tensorboard --logdir runs` shows all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.core.errors import UsageError
from cnnkit.core.extras import require
from cnnkit.train.callbacks import Callback, EpochRecord, StepRecord, TrainRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """A callback that writes event files into `folder`; the horizontal axis counts steps since the run began.

    Each epoch gives loss and accuracy of training and validation, the learning rate
    and images per second; in between, `running/` shows the epoch so far. A resumed run goes on in the same folder:
    what was written after the step that it goes on from is taken back. Raises CnnkitError if tensorboard is missing,
    UsageError for a path that it cannot write to: one that is not UTF-8.
    """

    def __init__(self, folder: Path):
        require("tensorboard", "track")
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"TensorBoard cannot write to {folder}, a path that is not UTF-8: leave out --tensorboard, or choose "
                "another --output"
            ) from error
        self.folder, self.steps = folder, 0
        self.writer: SummaryWriter | None = None

    def on_train_begin(self, record: TrainRecord) -> None:
        """Note how many steps an epoch has."""
        self.steps = record.steps

    def on_step_end(self, record: StepRecord) -> None:
        """Write the epoch so far."""
        figures = {
            "running/loss": record.loss,
            "running/accuracy": record.accuracy,
            "running/images_per_second": record.images_per_second,
        }
        self._write(figures, (record.epoch - 1) * self.steps + record.step)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Write what the epoch brought, onto the disk."""
        figures = {
            "loss/training": record.train_loss,
            "loss/validation": record.val_loss,
            "accuracy/training": record.train_accuracy,
            "accuracy/validation": record.val_accuracy,
            "lr": record.lr,
            "images_per_second": record.images_per_second,
        }
        self._write(figures, record.epoch * self.steps).flush()

    def on_train_end(self, reason: str) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()
            self.writer = None

    def _write(self, figures: Mapping[str, float | None], step: int) -> "SummaryWriter":
        if self.writer is None:  # only now is it known where the run goes on from
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(self.folder, purge_step=step)
        for name, value in figures.items():
            if value is not None:
                self.writer.add_scalar(name, value, step)
        return self.writer
