"""TensorBoard event files of a run (extra `track`): `tensorboard --logdir runs` shows all runs."""

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
    """A callback that writes event files into `folder`; the horizontal axis counts steps since the start of the run.

    Each epoch writes loss and accuracy of training and validation, the learning rate and images per second; in between,
    `running/` shows the epoch so far. A resumed run continues in the same folder, without the events after the step
    that it resumes from. Raises CnnkitError if tensorboard is missing, UsageError for a path that is not UTF-8.
    """

    def __init__(self, folder: Path):
        require("tensorboard", "track")
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"TensorBoard cannot write to {folder}, a path that is not UTF-8: remove --tensorboard, or choose "
                "another --output"
            ) from error
        self.folder, self.steps = folder, 0
        self.writer: SummaryWriter | None = None

    def on_train_begin(self, record: TrainRecord) -> None:
        """Store the number of steps per epoch."""
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
        """Write the results of the epoch, and flush them."""
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
        """Close the event file."""
        if self.writer:
            self.writer.close()
            self.writer = None

    def _write(self, figures: Mapping[str, float | None], step: int) -> "SummaryWriter":
        if self.writer is None:  # only now the step that the run starts from is known
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(self.folder, purge_step=step)
        for name, value in figures.items():
            if value is not None:
                self.writer.add_scalar(name, value, step)
        return self.writer
