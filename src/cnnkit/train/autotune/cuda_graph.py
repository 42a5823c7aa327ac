"""A step's forward and backward pass as one CUDA graph: the host asks for all of its kernels at once.

A small network's kernels take a GPU less time than asking for them, one by one, takes the host.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnnkit.train.config import TrainConfig

__all__ = ["CudaGraphStep", "uncapturable"]

WARM = 3  # passes before it is captured, in which libraries choose their algorithms and take their memory


class CudaGraphStep:
    """`work(x, y)`, which leaves gradients with the parameters of `net`, for images and labels of these shapes.

    Capturing leaves the net's buffers as they are. Random numbers are those that the device's generator, as seeded
    before the call, gives without a graph. Raises RuntimeError for work that waits for the device.
    """

    def __init__(self, net: nn.Module, work: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor):
        self.x, self.y = x.clone(), y.clone()
        self.parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        before = [buffer.clone() for buffer in net.buffers()]
        here, aside = torch.cuda.current_stream(x.device), torch.cuda.Stream(x.device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._forget_gradients()
                work(self.x, self.y)
        here.wait_stream(aside)
        self._forget_gradients()  # so that those of the graph are its own, written anew each time
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = work(self.x, self.y)
        self.gradients = [parameter.grad for parameter in self.parameters]
        for buffer, value in zip(net.buffers(), before, strict=True):
            buffer.copy_(value)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what the work returns; the next call overwrites it, and the gradients."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def uncapturable(device: torch.device, config: TrainConfig, processes: int) -> str | None:
    """Return why steps under these settings cannot be captured, or None if they can."""
    if device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    if processes > 1:
        return "CUDA graphs are of one process"
    asked = {"accumulate": config.accumulate > 1, "cutmix": config.cutmix, "mixup": config.mixup}
    if names := [name for name, value in asked.items() if value]:
        return f"CUDA graphs have no {', '.join(names)}"
    return None
