"""Training one network in several processes, on one machine or more (started by torchrun)."""

import gc
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]  # not marked as exported

from cnnkit.core.errors import CnnkitError

__all__ = ["ALONE", "World", "is_synchronised", "join_world", "synchronise_batch_norms"]

T = TypeVar("T")
PATIENCE = timedelta(minutes=5)  # between the starts of the first process and the last one


@dataclass(frozen=True)
class World:
    """This process in the process group; alone, every method returns at once."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    job: str | None = None  # the same for all restarts of a job

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """Rank and size: which part of each batch this process computes."""
        return self.rank, self.size

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum the tensor over all ranks in place, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: T) -> T:
        """Return the main process's value, a small object, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def copy_buffers(self, net: nn.Module) -> None:
        """Copy the main process's buffers, such as moving statistics, into `net`."""
        if self.size > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, 0)

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all ranks, small objects, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def explain_lost_rank(self) -> Iterator[None]:
        """Raise CnnkitError in the place of the communication library's error when another rank is lost."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(word in str(error) for word in ("gloo", "NCCL", "Connection", "peer")):
                raise
            raise CnnkitError(
                f"rank {self.rank} of {self.size} has lost another rank; torchrun --max-restarts restarts all from the "
                "last checkpoint, as does --resume"
            ) from error

    def leave(self) -> None:
        """Leave the process group."""
        if self.size > 1 and dist.is_initialized():
            gc.collect()  # the threads of DistributedDataParallel must end before Python does
            dist.destroy_process_group()


ALONE = World()


def join_world() -> World:
    """Initialise the process group if torchrun has started this process: NCCL for CUDA tensors, Gloo for others.

    Raises CnnkitError if the other ranks cannot be reached, or a process has no CUDA device of its own.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ALONE
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    run = os.environ["TORCHELASTIC_RUN_ID"]
    # torchrun calls a job "none" by default; its process then tells jobs apart
    world = World(rank, size, local_rank, f"{run}-{_parent()}" if run == "none" else run)
    if size > 1:
        cuda = torch.cuda.is_available()
        try:
            if cuda:
                torch.cuda.set_device(local_rank)
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            store, _, _ = next(rendezvous("env://", rank, size, timeout=PATIENCE))
            dist.init_process_group(backend, store=_fresh_store(store, rank, size), rank=rank, world_size=size)
        except (RuntimeError, ValueError) as error:
            raise CnnkitError(f"rank {rank} of {size} cannot join the process group: {error}") from error
    return world


def _fresh_store(store: Store, rank: int, size: int) -> Store:
    """Return `store` behind a prefix that only the running processes know; RuntimeError if a rank does not appear.

    torchrun keeps one store for all restarts, with the addresses of dead processes. The number of restarts cannot be
    the prefix, as each machine counts its own. So each rank writes a random word, and rank 0 answers all the words that
    it finds until every rank has confirmed the answer.
    """
    if rank > 0:
        word = uuid.uuid4().hex
        store.set(f"hello/{rank}", word)
        prefix = store.get(f"answer/{word}").decode()
        store.set(f"{prefix}/here/{rank}", "")
        return PrefixStore(prefix, store)
    prefix = uuid.uuid4().hex
    absent = set(range(1, size))
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while absent:
        if time.monotonic() > deadline:
            raise RuntimeError(f"ranks {sorted(absent)} did not appear within {PATIENCE.total_seconds():g} s")
        for other in absent:
            if store.check([f"hello/{other}"]):
                store.set(f"answer/{store.get(f'hello/{other}').decode()}", prefix)
        absent = {other for other in absent if not store.check([f"{prefix}/here/{other}"])}
        time.sleep(0.01)
    return PrefixStore(prefix, store)


def _parent() -> str:
    """Return an identifier of the parent process, unique also among containers with the same process ids."""
    parent = os.getppid()
    status = Path(f"/proc/{parent}/stat")
    return f"{parent}-{status.read_text().rpartition(')')[2].split()[19]}" if status.exists() else str(parent)


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]  # torch's own signature
    return total


class _Sum(torch.autograd.Function):
    """The sum over all ranks; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the images of all ranks; torch's SyncBatchNorm supports CUDA devices only."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, N x C or N x C x H x W, normalised."""
        if not self.training:
            return super().forward(x)
        dtype, x = x.dtype, x.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = _sum(x.new_tensor(x.numel() / x.shape[1]))
        mean = _sum(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        y: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        return (y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y).to(dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of dimensions."""


def is_synchronised(norm: nn.Module) -> bool:
    """Return whether a batch normalisation computes its statistics over all ranks."""
    return isinstance(norm, _SyncedBatchNorm | nn.SyncBatchNorm)


def synchronise_batch_norms(net: nn.Module, device: torch.device) -> nn.Module:
    """Return `net` with batch normalisations that compute their statistics over all ranks."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return converted
    for module in net.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            module.__class__ = _SyncedBatchNorm
    return net
