"""A training step: forward, backward and update, in the precision and on the ranks that the settings say."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnkit.core.device import mix_seed, seed_device
from cnnkit.core.errors import CnnkitError
from cnnkit.data.batches import Batches
from cnnkit.train.autotune.cuda_graph import CudaGraphStep
from cnnkit.train.autotune.plan import Plan, plain_plan, use_plan
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import ALONE, World, synchronise_batch_norms
from cnnkit.train.ema import MovingAverage
from cnnkit.train.mixing import Targets, mix
from cnnkit.train.norms import Moments, Norm, batches_to_measure, learning_norms, measure, write_statistics
from cnnkit.train.objective import Objective
from cnnkit.train.optimizer import freeze, make_optimizer

__all__ = ["Step", "Stepper"]


@dataclass(frozen=True)
class Step:
    """The parameters of a step beside its images."""

    number: int  # in the epoch
    lr: float
    seed: int  # of everything random in the step, so that a checkpoint needs no generator state
    images: int  # in the batch, over all ranks


class Stepper:
    """A net with everything that a step changes: optimiser, moving average, loss scale.

    `class_weights` (one per class) weight the loss. With several ranks, each calls it with its part of the batch and
    all take the same step. `plan` says how to compute a step; the default follows from the settings alone.
    """

    def __init__(
        self,
        net: nn.Module,
        config: TrainConfig,
        world: World = ALONE,
        class_weights: Tensor | None = None,
        plan: Plan | None = None,
    ):
        self.net, self.config, self.world = net, config, world
        self.device = next(net.parameters()).device
        if config.sync_bn and world.size > 1:
            self.net = net = synchronise_batch_norms(net, self.device)
        self.frozen = freeze(net, config.freeze)
        self.objective = Objective(config, class_weights)
        self.optimizer = make_optimizer(net, config)
        self.average = MovingAverage(net, config.ema) if config.ema else None
        self.plan = plan or plain_plan(config)
        use_plan(net, self.plan)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.plan.precision == "fp16")
        self.cuda_graphs: dict[int, CudaGraphStep] = {}  # by the number of images
        self.skipped: list[int] = []  # numbers of steps in the epoch
        self.num_skipped = 0

    @cached_property
    def model(self) -> Callable[[Tensor], Tensor]:
        """The forward pass: the net, distributed and compiled if the settings say so."""
        model = self.net
        if self.world.size > 1:
            model = DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)
        if self.plan.compiled:
            model = cast(nn.Module, torch.compile(model))
        return model

    def train(self) -> None:
        """Put the net into training mode, except for its frozen modules."""
        self.net.train()
        for module in self.frozen:
            module.eval()

    @property
    def best_net(self) -> nn.Module:
        """The net to validate and save: the moving average, if there is one."""
        return self.average.net if self.average else self.net

    @property
    def predict(self) -> Callable[[Tensor], Tensor]:
        """The function that computes the best net's logits, in prediction mode."""
        return self.best_net

    def read(self, batches: Batches, epoch: int, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield an epoch's batches from number `first` on: how many to take at once, their images and labels."""
        for x, y in batches.epoch(epoch, first):
            yield 1, x, y

    def take(self, steps: Sequence[Step], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take steps on the consecutive batches in x, y; return the loss and the number of correct images of each."""
        sizes = [step.images for step in steps] if len(steps) > 1 else [len(y)]
        rows = zip(steps, x.split(sizes), y.split(sizes), strict=True)
        losses, correct = zip(*(self(step, part, labels) for step, part, labels in rows), strict=True)
        return torch.stack(losses), torch.stack(correct)

    def __call__(self, step: Step, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step and return the batch's mean loss and how many images were correct.

        x, y are this rank's part of the batch. Raises CnnkitError when too many gradients are NaN/Inf.
        """
        before = [buffer.clone() for buffer in self.net.buffers()] if self.config.skip_nan else []
        loss, correct = self._gradients(step, x, y)
        for group in self.optimizer.param_groups:
            group["lr"] = step.lr * group["factor"]
        self.scaler.unscale_(self.optimizer)
        if self.config.clip or self.config.skip_nan:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)
            # infinite gradients are how the scaler finds its scale
            wrong = loss if self.scaler.is_enabled() else norm + loss
            if self.config.skip_nan and not wrong.isfinite():
                self._skip(step.number, before)
                return loss, torch.zeros_like(correct)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.net)
        return loss, correct

    def _gradients(self, step: Step, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient of the batch's mean loss; return the loss and the number of correct images."""
        x, targets = self._mix(step.seed, x, y)
        if self.plan.graph:
            if len(y) not in self.cuda_graphs:
                self.cuda_graphs[len(y)] = CudaGraphStep(self.net, self._pass, x, y)
            loss, correct = self.cuda_graphs[len(y)](x, y)
            return loss, correct
        self.optimizer.zero_grad()
        totals = torch.zeros(2, device=x.device)
        count = self._parts(step.images)
        parts = list(zip(x.tensor_split(count), targets.split(count), strict=True))
        for index, (part, labels) in enumerate(parts):
            with self._exchange(index + 1 == len(parts)):
                totals += self._pass(part, labels, step.images)
        loss, correct = self.world.all_reduce(totals)
        return loss, correct

    def _mix(self, seed: int, x: Tensor, y: Tensor) -> tuple[Tensor, Targets]:
        """Seed the random numbers of a step; return its images in the plan's format, mixed if the settings say so."""
        seed_device(self.device, seed)
        x, targets = mix(self.config, self.plan.lay_out(x), y)
        if self.world.rank:  # all ranks mix by the same numbers, and drop out by their own
            seed_device(self.device, mix_seed(seed, self.world.rank))
        return x, targets

    def _parts(self, images: int) -> int:
        """Return in how many parts to compute a batch of so many images over all ranks.

        All ranks have equally many, with two images at least: batch normalisation cannot train on one.
        """
        return min(self.config.accumulate, images // (2 * self.world.size)) or 1

    def _pass(self, x: Tensor, labels: Targets | Tensor, images: int | None = None) -> Tensor:
        """Run forward and backward; return these images' part of a batch's mean loss, and how many are correct."""
        targets = Targets(labels) if isinstance(labels, Tensor) else labels
        with torch.autocast(self.device.type, self.plan.half, enabled=self.plan.half is not None):
            logits = self.model(x)
        loss = self.objective.total(logits, targets) / (images or len(x))
        # gradients are averaged over the ranks, but the losses are parts of one sum
        self.scaler.scale(loss * self.world.size).backward()
        return torch.stack([loss.detach(), (logits.detach().argmax(1) == targets.first).sum()])

    def _exchange(self, last: bool) -> AbstractContextManager[None]:
        """Let the ranks exchange gradients with the last part of a batch only."""
        if last or self.world.size == 1:
            return nullcontext()
        return cast(AbstractContextManager[None], cast(DistributedDataParallel, self.model).no_sync())

    def _skip(self, number: int, buffers: list[Tensor]) -> None:
        """Skip a step whose gradient is NaN/Inf; raise CnnkitError if there are more than `skip_nan`."""
        self.num_skipped += 1
        if self.num_skipped > self.config.skip_nan:
            raise CnnkitError(
                f"{self.num_skipped} NaN/Inf gradients, but skip_nan allows {self.config.skip_nan}; lower the lr"
            )
        self.skipped.append(number)
        self.scaler.update()
        for buffer, value in zip(self.net.buffers(), buffers, strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def measure_statistics(self, batches: Batches, epoch: int) -> None:
        """Measure the best net's batch normalisation statistics on a few batches of an epoch, with its current weights.

        The batches are those that the epoch has trained on, with the same augmentation, mixing and parts, in float32
        and without dropout, as in prediction. Does nothing if the settings keep the moving averages.
        """
        norms = learning_norms(self.net, self.best_net)
        trained = [number for number in range(len(batches)) if number not in self.skipped]
        numbers = trained[: batches_to_measure(batches)]
        if self.config.norm_statistics == "moving" or not norms or not numbers:
            return
        found: dict[nn.Module, Moments] = {}
        for number, (x, y) in enumerate(batches.epoch(epoch, stop=numbers[-1] + 1)):
            if number not in numbers:
                continue
            x, _ = self._mix(mix_seed(self.config.seed, epoch, number), x, y)
            for part in x.tensor_split(self._parts(batches.sizes[number])):
                for norm, moments in self._measure(norms, part).items():
                    found[norm] = found[norm] + moments if norm in found else moments
        for norm in norms:
            if norm in found:
                write_statistics(norm, found[norm].over(self.world))

    def _measure(self, norms: Sequence[Norm], x: Tensor) -> dict[nn.Module, Moments]:
        """Return the moments of the inputs of batch normalisations, for this rank's part of a batch."""
        return measure(self.best_net, norms, x, self.world)

    def state(self) -> dict[str, Any]:
        """Return the stepper's part of a checkpoint."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average and {"steps": self.average.steps, "net": self.average.net.state_dict()},
            "skipped": self.skipped,
            "num_skipped": self.num_skipped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load what `state` returned and `require_fit` accepted; the optimiser keeps the settings of this run."""
        self.net.load_state_dict(state["net"])
        own = self.optimizer.state_dict()
        self.optimizer.load_state_dict(own | {"state": state["optimizer"]["state"]})
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.steps = state["average"]["steps"]
            self.average.net.load_state_dict(state["average"]["net"])
        self.skipped, self.num_skipped = state["skipped"], state["num_skipped"]
