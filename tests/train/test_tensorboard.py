"""The TensorBoard callback: what it writes, and what a resumed run replaces."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnkit.data import Batches, Preprocess, load_dataset
from cnnkit.nets import create
from cnnkit.train import EpochRecord, StepRecord, TrainConfig, Trainer, TrainRecord
from cnnkit.train.tensorboard import TensorBoard


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def epoch(number: int, loss: float, val_loss: float | None = None) -> EpochRecord:
    return EpochRecord(number, loss, 0.5, val_loss, val_loss and 0.25, 0.125, 2.0, 64.0, True)


def step(number: int, at: int, loss: float) -> StepRecord:
    return StepRecord(number, at, 10, loss, 0.5, 32.0, 9.0)


def begun(folder: Path) -> TensorBoard:
    result = TensorBoard(folder)
    result.on_train_begin(TrainRecord(epochs=4, steps=10, images=320, epoch=1, step=0))
    return result


def test_tensorboard_reads_what_the_callback_writes(tmp_path: Path) -> None:
    callback = begun(tmp_path / "events")
    callback.on_step_end(step(1, 4, 3.0))
    callback.on_epoch_end(epoch(1, 2.0, 2.5))
    callback.on_epoch_end(epoch(2, 1.0, 1.5))
    events = EventAccumulator(str(tmp_path / "events"))  # an epoch is on the disk as soon as it is over
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        *("accuracy/training", "accuracy/validation", "images_per_second", "loss/training", "loss/validation", "lr"),
        *("running/accuracy", "running/images_per_second", "running/loss"),
    ]
    expected = {
        "loss/training": [(10, 2.0), (20, 1.0)],
        "loss/validation": [(10, 2.5), (20, 1.5)],
        "accuracy/training": [(10, 0.5), (20, 0.5)],
        "accuracy/validation": [(10, 0.25), (20, 0.25)],
        "lr": [(10, 0.125), (20, 0.125)],
        "images_per_second": [(10, 64.0), (20, 64.0)],
        "running/loss": [(4, 3.0)],
        "running/accuracy": [(4, 0.5)],
        "running/images_per_second": [(4, 32.0)],
    }
    assert {tag: scalars(tmp_path / "events", tag) for tag in expected} == expected
    callback.on_train_end("")


def test_without_validation_there_is_no_curve_of_it(tmp_path: Path) -> None:
    callback = TensorBoard(tmp_path)
    callback.on_epoch_end(epoch(1, 2.0))
    callback.on_train_end("")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert not [tag for tag in events.Tags()["scalars"] if "validation" in tag]


def test_a_resumed_run_takes_back_what_it_repeats(tmp_path: Path) -> None:
    callback = begun(tmp_path)
    for number in (1, 2, 3):
        callback.on_step_end(step(number, 5, number))
        callback.on_epoch_end(epoch(number, number))
    callback.on_train_end("")
    resumed = begun(tmp_path)  # from a checkpoint of step 22
    resumed.on_step_end(step(3, 4, 30.0))
    resumed.on_step_end(step(3, 8, 31.0))
    resumed.on_epoch_end(epoch(3, 32.0))
    resumed.on_epoch_end(epoch(4, 40.0))
    resumed.on_train_end("")
    assert scalars(tmp_path, "loss/training") == [(10, 1.0), (20, 2.0), (30, 32.0), (40, 40.0)]
    assert scalars(tmp_path, "running/loss") == [(5, 1.0), (15, 2.0), (24, 30.0), (28, 31.0)]


def test_a_callback_without_records_writes_nothing(tmp_path: Path) -> None:
    begun(tmp_path / "events").on_train_end("")
    assert not list(tmp_path.iterdir())


def test_the_trainer_can_be_watched_in_tensorboard(tmp_path: Path) -> None:
    data = load_dataset("digits", None)
    batches = Batches(data.train.subset(data.train.labels.argsort(stable=True)[::6]), 64, Preprocess((28, 28)), seed=0)

    def train(epochs: int, resume: bool) -> None:
        callback = TensorBoard(tmp_path / "events")
        config = TrainConfig(epochs=epochs, batch_size=64, schedule="constant")
        trainer = Trainer(
            *(create("lenet"), batches, None, config),
            checkpoint=tmp_path / "last.ckpt",
            callbacks=[callback],
            save_best=lambda net, record: None,
        )
        if resume:
            trainer.resume()
        trainer.run()

    train(2, resume=False)
    train(3, resume=True)
    assert [at for at, _ in scalars(tmp_path / "events", "loss/training")] == [4, 8, 12]
