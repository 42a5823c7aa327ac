"""The speed of a training step, its time by kind of operator, and the peak of the machine."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from cnnkit.core.device import mix_seed
from cnnkit.core.timing import measure
from cnnkit.train.autotune.flops import operations
from cnnkit.train.autotune.plan import Plan, threads
from cnnkit.train.config import TrainConfig
from cnnkit.train.lanes import make_stepper
from cnnkit.train.step import Step

__all__ = ["Speed", "measure_steps", "peak", "profile_steps"]

WARM, ROUNDS = 3, 5  # steps before and while profiling
SPAN = 0.1  # seconds of a timing, at least
MATRIX_SIZES = {"cpu": 2048, "cuda": 8192}  # of the product that shows the peak speed
KINDS = {  # of operators, by words in their names; the first match counts
    "lanes steps": ("lanes",),
    "convolutions, backward": ("convolution_backward",),
    "convolutions": ("convolution", "conv2d"),
    "optimiser": ("_fused_", "_foreach", "Optimizer", "addcmul", "addcdiv", "lerp"),
    "batch normalisation": ("batch_norm",),
    "pooling": ("pool", "MaxPool"),
    "dropout": ("random_", "bernoulli", "dropout", "aten::ge"),
    "activations": ("threshold", "clamp_min", "relu", "sigmoid"),
    "matrix multiplications": ("mm", "linear", "matmul"),
    "loss": ("softmax", "nll_loss", "cross_entropy", "argmax"),
    "copies, casts, concatenation": ("copy_", "cat", "pad", "fill_", "zero", "clone", "index", "as_strided"),
    "elementwise and reductions": ("aten::add", "aten::mul", "aten::sum", "aten::div", "aten::mean"),
}
REST = "everything else"


@dataclass(frozen=True)
class Speed:
    """The training speed of a network."""

    images_per_second: float
    operations_per_second: float
    """Multiplications and additions; the backward pass counts as two forward passes."""


def peak(plan: Plan, device: torch.device) -> float:
    """Return the operations per second of a large matrix product, in the plan's precision and with its threads."""
    size = MATRIX_SIZES.get(device.type, 2048)
    matrix = torch.rand(size, size, device=device).to(plan.half or torch.float32)
    with threads(plan.threads):
        return 2 * size**3 / measure({"product": lambda: matrix @ matrix}, device, SPAN)["product"]


def measure_steps(net: nn.Module, image: tuple[int, int, int], batch: int, config: TrainConfig, plan: Plan) -> Speed:
    """Train `net` by the plan on a batch of random images C x H x W, and return its speed."""
    count = operations(net, image)
    with threads(plan.torch_threads):
        step = _make_step(net, image, batch, config, plan)
        seconds = measure({"step": step}, next(net.parameters()).device, SPAN)["step"]
    return Speed(batch / seconds, batch * count / seconds)


def profile_steps(
    net: nn.Module, image: tuple[int, int, int], batch: int, config: TrainConfig, plan: Plan
) -> dict[str, float]:
    """Return the seconds of a step that each operator group takes, on the device that computes it."""
    device = next(net.parameters()).device
    plan = plan.model_copy(update={"graph": False})  # whose kernels belong to no operator
    step = _make_step(net, image, batch, config, plan)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with threads(plan.torch_threads):
        for _ in range(WARM):
            step()
        with profile(activities=activities, acc_events=True) as profiled:
            for _ in range(ROUNDS):
                step()
    seconds = dict.fromkeys([*KINDS, REST], 0.0)
    for row in profiled.key_averages():
        if row.device_type.name != "CPU":  # kernels, which the operators that launched them count already
            continue
        own = row.self_device_time_total if on_gpu else row.self_cpu_time_total
        kind = next((kind for kind, words in KINDS.items() if any(word in row.key for word in words)), REST)
        seconds[kind] += own / 1e6 / ROUNDS
    return dict(sorted(seconds.items(), key=lambda pair: -pair[1]))


def _make_step(
    net: nn.Module, image: tuple[int, int, int], batch: int, config: TrainConfig, plan: Plan
) -> Callable[[], object]:
    stepper = make_stepper(net, config, plan, image)
    stepper.train()
    x = torch.rand(batch, *image, device=stepper.device)
    y = torch.arange(batch, device=stepper.device) % 2
    return lambda: stepper.take([Step(0, 1e-4, mix_seed(config.seed), batch)], x, y)
