"""The predictions of a network for the images of a split, kept in the run folder as one .npz file.

Everything that judges a run reads them: metrics, calibration, reports. Digests of the network, the split and the images
tell whether they are still true.
"""

import hashlib
import json
import logging
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, reading
from cnnkit.core.files import atomic_write, read_bytes
from cnnkit.core.finite import require_finite
from cnnkit.core.limits import MAX_RECORD_BYTES
from cnnkit.core.modes import prediction_mode
from cnnkit.core.progress import Counter
from cnnkit.core.schema import Word, validated
from cnnkit.core.text import from_json, to_csv, to_json
from cnnkit.data import Batches, ImageSet
from cnnkit.deploy import Bundle, Classifier
from cnnkit.experiment.split_images import SplitImages, SplitName
from cnnkit.metrics import probabilities
from cnnkit.train import ALONE, World

__all__ = ["SplitPredictions", "digest_of_images", "kept_predictions", "predict_split", "read_predictions"]

log = logging.getLogger(__name__)

Seconds = Annotated[float, Field(strict=True, gt=0, le=1e300)]
Digest = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]  # begins a file's name
Part = tuple[Tensor, Tensor]  # rows, and their logits
FIRST = 12  # hex digits of the data's digest in a file's name


class _Facts(BaseModel):
    """Schema of what the file holds besides arrays."""

    model_config = ConfigDict(extra="forbid")

    net: Word
    data: Word
    split: SplitName
    classes: tuple[Word, ...]
    names: tuple[Word, ...]
    seconds: Seconds
    data_sha256: Digest
    split_sha256: Word
    model_sha256: Word
    remarks: tuple[Word, ...]
    skipped: tuple[tuple[Word, Word], ...]


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """Logits (float32, N x classes) and labels (int64, N) of the images of a split, in the order of the data.

    `names` are the images' paths below the folder of the data; data without files have none. `seconds` is the time of
    reading the images and running the network. `split_sha256` is empty for data that are not the network's own.
    """

    net: str
    data: str
    split: SplitName
    classes: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    seconds: float
    data_sha256: str
    split_sha256: str
    model_sha256: str
    remarks: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """The class of the largest logit of each image (int64, N); of equal ones the first."""
        found: np.ndarray = self.logits.argmax(1)
        return found

    @property
    def file_name(self) -> str:
        """The name of the file in the run folder: images of other data, or other images, have another one."""
        return f"predictions-{self.split}-{self.data_sha256[:FIRST]}.npz"

    def name_of(self, row: int) -> str:
        """Return the path of an image, or its number."""
        return self.names[row] if self.names else f"image {row}"

    def is_of(self, bundle: Bundle) -> bool:
        """Return whether the predictions are those of this bundle's network for its own split."""
        return (self.model_sha256, self.split_sha256) == (bundle.model_sha256, bundle.split_sha256)

    def save(self, folder: Path) -> Path:
        """Write the file into a run folder, and return its path; raises CannotWrite."""
        facts = {name: value for name, value in vars(self).items() if name in _Facts.model_fields}
        content = BytesIO()
        text = np.frombuffer(to_json(facts, ascii=True).encode(), np.uint8)
        np.savez(content, logits=self.logits, labels=self.labels, facts=text)
        path = folder / self.file_name
        atomic_write(path, content.getvalue())
        return path

    def to_csv(self, temperature: float = 1.0) -> str:
        """Return CSV with the columns file, label, prediction and p_CLASS: the probability of each class."""
        rows: list[list[str]] = [["file", "label", "prediction", *(f"p_{name}" for name in self.classes)]]
        for row, (label, guess) in enumerate(zip(self.labels.tolist(), self.predicted.tolist(), strict=True)):
            shares = probabilities(self.logits[row : row + 1], temperature)[0]
            answers = [self.name_of(row), self.classes[label], self.classes[guess]]
            rows.append([*answers, *(f"{value:.6g}" for value in shares.tolist())])
        return to_csv(rows)


def read_predictions(path: Path) -> SplitPredictions:
    """Return the predictions in a file; raises CnnkitError if it is corrupt."""
    with reading(path):
        try:
            content = read_bytes(path, MAX_RECORD_BYTES)
            with zipfile.ZipFile(BytesIO(content)) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("it has compressed members")  # which may be much larger than the file
            arrays = np.load(BytesIO(content), allow_pickle=False)
            logits, labels, text = (np.asarray(arrays[name]) for name in ("logits", "labels", "facts"))
            facts = validated(_Facts, from_json(text.tobytes()))
        except (zipfile.BadZipFile, EOFError, KeyError, MemoryError, RuntimeError) as error:
            raise ValueError(f"not a file of predictions: {error}") from error
        number, classes = labels.size, len(facts.classes)
        if logits.dtype != np.float32 or logits.shape != (number, classes) or labels.dtype != np.int64:
            raise ValueError(f"logits {logits.dtype} {logits.shape} for {number} labels {labels.dtype}")
        if not np.isfinite(logits).all():
            raise ValueError("it has NaN or Inf")
        if labels.ndim != 1 or not number or not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError("labels out of range")
        if len(facts.names) not in (0, number):
            raise ValueError(f"{len(facts.names)} names for {number} labels")
        return SplitPredictions(logits=logits, labels=labels, **dict(facts))


def kept_predictions(folder: Path, bundle: Bundle, split: SplitName) -> SplitPredictions | None:
    """Return the newest kept predictions of a bundle's network for a split of its own data, None if there are none.

    Those of other weights, of another split or of other data do not count.
    """
    for path in sorted(folder.glob(f"predictions-{split}-*.npz"), key=_age):
        try:
            found = read_predictions(path)
        except CnnkitError as error:
            log.warning("%s; ignored", error)
            continue
        if found.is_of(bundle):
            return found
    return None


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:  # just deleted
        return 0.0


def digest_of_images(images: ImageSet, classes: tuple[str, ...]) -> str:
    """Return the SHA-256 of the images' content and of the names of their classes, in their order."""
    content = list(images.digests) or images.digest()
    return hashlib.sha256(
        json.dumps([content, [classes[label] for label in images.labels.tolist()]]).encode()
    ).hexdigest()


def predict_split(
    classifier: Classifier,
    found: SplitImages,
    split: SplitName,
    batch_size: int,
    *,
    world: World = ALONE,
    progress: bool = True,
) -> SplitPredictions:
    """Run a network on the images of a split; of several processes, each runs a part, and all return the whole.

    Raises CnnkitError, in every process, if the network returns NaN or Inf. Images that cannot be read, if they are
    skipped, are left out.
    """
    images, bundle = found.images, classifier.bundle
    batches = Batches(images, batch_size, bundle.preprocess, device=classifier.device, shard=world.shard)
    started = time.perf_counter()
    own: list[Part] | CnnkitError
    try:
        with Counter(f"evaluating on {found.name}", len(images), progress and world.is_main) as counter:
            own = list(_logits(classifier.net, batches, images.names, counter, world.size))
    except CnnkitError as error:
        own = error
    gathered: list[Part] = []
    for some in world.all_gather(own):  # of every process, as the others wait for one that fails
        if isinstance(some, CnnkitError):
            raise some
        gathered += some
    rows = torch.cat([part[0] for part in gathered])
    order = rows.argsort()
    logits, rows = torch.cat([part[1] for part in gathered])[order], rows[order]
    kept = images if len(rows) == len(images) else images.subset(rows)
    return SplitPredictions(
        net=bundle.net,
        data=found.name,
        split=split,
        classes=bundle.classes,
        logits=logits.numpy(),
        labels=kept.labels.cpu().numpy(),
        names=tuple(kept.names),
        seconds=time.perf_counter() - started,
        data_sha256=digest_of_images(kept, bundle.classes),
        split_sha256=bundle.split_sha256 if found.own else "",
        model_sha256=bundle.model_sha256,
        remarks=found.remarks,
        skipped=found.skipped,
    )


def _logits(net: nn.Module, batches: Batches, names: Sequence[str], counter: Counter, processes: int) -> Iterator[Part]:
    """Yield the rows of each batch and their logits; raises CnnkitError for NaN and Inf."""
    with prediction_mode(net):
        for rows, x, _ in batches.numbered():
            logits: Tensor = net(x)
            require_finite(net, x, logits, [names[row] if names else f"image {row}" for row in rows.tolist()])
            counter.advance(len(rows) * processes)
            yield rows, logits.float().cpu()
