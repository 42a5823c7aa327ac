"""The engine that trains a network, measures it and predicts in lanes: one image in each lane of a register."""

import ctypes
import math
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.core.shape import by
from cnnkit.lanes.chain import read_chain
from cnnkit.lanes.codegen import aligned_size, generate
from cnnkit.lanes.layers import Size
from cnnkit.lanes.library import Job, Optimizer, Parameter, load_library
from cnnkit.lanes.optimizer import address, describe, read_optimizer

__all__ = ["Engine"]


class Engine:
    """Trains `net`, a chain of layers for images C x H x W, and predicts with it, on `threads` threads.

    It reads and writes the module's own parameters and running statistics and has no others, so the module is complete
    before and after each call. Images are N x C x H x W: float32 as the network expects them, or uint8, whose pixels p
    become p * scale + shift, each one number or one per channel. The first engine for a network compiles it, which
    takes seconds. Raises UsageError for a layer that lanes do not support, and CnnkitError without a compiler.
    """

    def __init__(
        self,
        net: nn.Module,
        image: Size,
        *,
        scale: Tensor | float = 1 / 255,
        shift: Tensor | float = 0.0,
        threads: int | None = None,
        flags: tuple[str, ...] = (),
    ):
        self.net, self.image, self.threads = unwrapped(net), image, threads or torch.get_num_threads()
        layers = read_chain(net, image)
        self.classes = layers[-1].output[0]
        self._parameters = [parameter for layer in layers for parameter in layer.module.parameters()]
        self._norms = {layer.module: math.prod(layer.input[1:]) for layer in layers if layer.num_statistics}
        channels = torch.ones(image[0])
        self._scale, self._shift = channels * scale, channels * shift
        self._library = load_library(generate(layers, image), flags)
        self.lanes = int(self._library.lanes())
        self._team = self._library.start(self.threads)
        weakref.finalize(self, self._library.stop, self._team)

    def train(
        self,
        images: Tensor,
        labels: Tensor,
        sizes: Sequence[int],
        optimizer: torch.optim.Optimizer,
        rates: Sequence[float],
        *,
        seeds: Sequence[int] | None = None,
        smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Take a step on each batch: the first sizes[0] images, and so on, at the learning rates `rates`.

        `optimizer` is torch's SGD, Adam or AdamW over the net's parameters; its options apply, a group's `factor`
        multiplies the learning rate, and its state is updated. `seeds` are dropout's; `smoothing` is the share of a
        label that is spread over all classes. Return the mean loss of each batch, float64, and its number of correct
        images, int64.
        """
        settings, parameters, states = read_optimizer(optimizer, self._parameters)
        job = self._job(images, parameters)
        job.optimizer = ctypes.addressof(settings)
        result = self._steps(job, labels, sizes, rates, [0] * len(sizes) if seeds is None else seeds, smoothing)
        for state in states:
            state["step"] += len(sizes)
        return result

    def gradients(
        self, images: Tensor, labels: Tensor, *, seed: int = 0, smoothing: float = 0.0
    ) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss of a batch, and its gradient by each parameter's name.

        The parameters do not change; running statistics are updated.
        """
        lengths = [aligned_size(parameter) for parameter in self._parameters]
        flat = torch.empty(sum(lengths))
        job, settings = self._job(images), Optimizer()
        job.optimizer, job.gradients = ctypes.addressof(settings), flat.data_ptr()
        losses, _ = self._steps(job, labels, [len(labels)], [0.0], [seed], smoothing)
        names = {id(parameter): name for name, parameter in self.net.named_parameters()}
        parts = zip(self._parameters, flat.split(lengths), strict=True)
        return losses.item(), {names[id(own)]: part[: own.numel()].view_as(own).clone() for own, part in parts}

    def measure(self, images: Tensor) -> dict[nn.Module, tuple[int, Tensor, Tensor]]:
        """Return each batch normalisation's statistics of a batch: values per channel, mean, biased variance.

        Each normalises by these, as in training; dropout is off. The module does not change.
        """
        found = {norm: torch.empty(2, norm.num_features) for norm in self._norms}
        job = self._job(images)
        outputs = _addresses([row for rows in found.values() for row in rows])
        job.statistics = ctypes.addressof(outputs)
        self._library.measure(self._team, ctypes.byref(job))
        return {norm: (len(images) * area, *found[norm]) for norm, area in self._norms.items()}

    def predict(self, images: Tensor) -> Tensor:
        """Return logits N x classes, computed in prediction mode whatever the module's mode is."""
        logits = torch.empty(len(images), self.classes)
        job = self._job(images)
        job.logits = logits.data_ptr()
        self._library.predict(self._team, ctypes.byref(job))
        return logits

    def _steps(
        self,
        job: Job,
        labels: Tensor,
        sizes: Sequence[int],
        rates: Sequence[float],
        seeds: Sequence[int],
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        if not len(sizes) == len(rates) == len(seeds):
            raise UsageError(f"lanes: {len(sizes)} batches have {len(rates)} learning rates and {len(seeds)} seeds")
        if not sum(sizes) == job.images == len(labels) or min(sizes, default=0) < 1:
            raise UsageError(
                f"lanes: {job.images} images and {len(labels)} labels do not match batches of {list(sizes)}"
            )
        low, high = int(labels.min()), int(labels.max())
        if not 0 <= low <= high < self.classes:
            raise UsageError(f"lanes: labels must be from 0 to {self.classes - 1}, not from {low} to {high}")
        if self._norms and min(sizes) < 2:
            raise UsageError("lanes: batch normalisation needs batches of at least two images")
        tensors = {
            "labels": labels.to(torch.int64).contiguous(),
            "sizes": torch.tensor(list(sizes), dtype=torch.int64),
            "rates": torch.tensor(list(rates), dtype=torch.float32),
            "seeds": torch.tensor(list(seeds), dtype=torch.int64).to(torch.int32),
            "losses": torch.empty(len(sizes), dtype=torch.float64),
            "correct": torch.empty(len(sizes), dtype=torch.int64),
        }
        for name, tensor in tensors.items():
            setattr(job, name, tensor.data_ptr())
        job.steps, job.smoothing = len(sizes), smoothing
        self._library.train(self._team, ctypes.byref(job))
        for norm in self._norms:
            norm.num_batches_tracked += len(sizes)
        return tensors["losses"], tensors["correct"]

    def _job(self, images: Tensor, parameters: Sequence[Parameter] = ()) -> Job:
        if images.shape[1:] != torch.Size(self.image) or images.dtype not in (torch.uint8, torch.float32):
            expected, given = by(*self.image), by(*images.shape)
            raise UsageError(f"lanes: images must be uint8 or float32, N x {expected}, not {images.dtype}, {given}")
        images = images.contiguous()
        table = (Parameter * len(self._parameters))(*(parameters or map(describe, self._parameters)))
        running = _addresses([b for norm in self._norms for b in (norm.running_mean, norm.running_var)])
        self._alive = images, table, running  # while the job points to them
        job = Job(images=len(images), scale=self._scale.data_ptr(), shift=self._shift.data_ptr())
        setattr(job, "bytes" if images.dtype == torch.uint8 else "floats", images.data_ptr())
        job.parameters, job.statistics = ctypes.addressof(table), ctypes.addressof(running)
        return job


def _addresses(tensors: Sequence[object]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*map(address, tensors))
