"""How a training step is computed: precision, memory format, threads, compilation, the algorithm of each convolution.

A plan changes results by rounding only. In half precision the weights, their updates, the loss and the batch
normalisation statistics stay in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.core.files import read_bytes
from cnnkit.core.limits import MAX_WORKERS
from cnnkit.core.schema import validated
from cnnkit.core.text import from_json
from cnnkit.ops.layout import FORMATS, MemoryFormat, lay_out
from cnnkit.ops.max_pool import compile_pooling
from cnnkit.ops.tuned import Algorithms, tune
from cnnkit.train.config import TrainConfig

__all__ = ["Plan", "lanes_plan", "plain_plan", "read_plan", "threads", "use_plan"]

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Plan(BaseModel):
    """How to compute a step; the defaults are those of torch, in channels-last memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["torch", "lanes"] = "torch"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    memory_format: MemoryFormat = "channels_last"
    threads: Annotated[int, Field(strict=True, ge=1, le=MAX_WORKERS)] | None = None
    compiled: Annotated[bool, Field(strict=True)] = False
    graph: Annotated[bool, Field(strict=True)] = False
    pooling: Literal["torch", "compiled"] = "torch"
    convolutions: dict[str, Algorithms] = {}

    def __str__(self) -> str:
        by = "lanes" if self.engine == "lanes" else self.memory_format.replace("_", "-")
        parts = [self.precision, by]
        if self.threads:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        if self.compiled:
            parts.append("compiled")
        if self.graph:
            parts.append("CUDA graph")
        if self.pooling == "compiled":
            parts.append("compiled pooling")
        if self.convolutions:
            parts.append(f"tuned convolutions: {len(self.convolutions)}")
        return ", ".join(parts)

    @property
    def torch_threads(self) -> int | None:
        """Number of torch's threads: one beside lanes, where more would wait on the same cores."""
        return 1 if self.engine == "lanes" else self.threads

    @property
    def half(self) -> torch.dtype | None:
        """Half-precision type of the forward pass, if any."""
        return HALVES.get(self.precision)

    def lay_out(self, x: Tensor) -> Tensor:
        """Return images N x C x H x W with this plan's strides; images of one channel are not copied."""
        return lay_out(x, self.memory_format)


def use_plan(net: nn.Module, plan: Plan) -> None:
    """Apply the plan to `net`: its memory format and the algorithms of its layers."""
    torch.backends.cudnn.benchmark = True  # on a GPU, let cuDNN benchmark its algorithms
    net.to(memory_format=FORMATS[plan.memory_format])  # type: ignore[call-overload]  # a gap in torch's stubs
    for name, layer in tune(net).items():
        layer.algorithms = plan.convolutions.get(name, Algorithms())
    compile_pooling(net, plan.pooling == "compiled")


def read_plan(path: Path) -> Plan:
    """Read a plan from a JSON file, such as a run's plan.json; raise UsageError if it is not one."""
    try:
        return validated(Plan, from_json(read_bytes(path)))
    except OSError as error:
        raise UsageError(f"plan {path}: cannot be read ({error.strerror}); pass auto, off or a file") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a valid plan: {error}; --plan auto makes one") from error


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Set torch's number of threads inside the context; None leaves it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plain_plan(config: TrainConfig) -> Plan:
    """Return the plan that follows from the settings alone; precision "auto" is float32."""
    precision = "fp32" if config.precision == "auto" else config.precision
    return Plan(precision=precision, compiled=config.compile)


def lanes_plan() -> Plan:
    """Return the plan to compute in lanes, with torch's current number of threads."""
    return Plan(engine="lanes", memory_format="contiguous", threads=torch.get_num_threads())
