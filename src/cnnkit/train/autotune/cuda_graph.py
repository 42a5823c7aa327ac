"""A step's forward and backward pass as one CUDA graph, whose kernels are all launched at once.

A GPU computes a small network's kernels in less time than the host needs to launch them one by one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnnkit.train.config import TrainConfig

__all__ = ["CudaGraphStep", "unsupported_reason"]

WARM = 3  # passes before the capture, in which libraries choose their algorithms and allocate memory


class CudaGraphStep:
    """`work(x, y)`, which leaves gradients with the parameters of `net`, captured for x and y of these shapes.

    The capture does not change the net's buffers. Random numbers are those that the device's generator, seeded before
    the call, gives without a graph. Raises RuntimeError for work that synchronises with the device.
    """

    def __init__(self, net: nn.Module, work: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor):
        self.x, self.y = x.clone(), y.clone()
        self.parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        before = [buffer.clone() for buffer in net.buffers()]
        current, side = torch.cuda.current_stream(x.device), torch.cuda.Stream(x.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self._clear_gradients()
                work(self.x, self.y)
        current.wait_stream(side)
        self._clear_gradients()  # so that the graph allocates its own, which each replay overwrites
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = work(self.x, self.y)
        self.gradients = [parameter.grad for parameter in self.parameters]
        for buffer, value in zip(net.buffers(), before, strict=True):
            buffer.copy_(value)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Replay the graph and return the result of `work`; the next call overwrites it and the gradients."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def unsupported_reason(device: torch.device, config: TrainConfig, processes: int) -> str | None:
    """Return why steps with these settings cannot be captured, or None if they can."""
    if device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    if processes > 1:
        return "CUDA graphs are of one process"
    asked = {"accumulate": config.accumulate > 1, "cutmix": config.cutmix, "mixup": config.mixup}
    if names := [name for name, value in asked.items() if value]:
        return f"CUDA graphs have no {', '.join(names)}"
    return None
