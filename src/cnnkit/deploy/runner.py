"""Fast prediction: a net on the engine that is the fastest on this machine."""

import copy
import io
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from threading import Lock
from typing import Literal

import torch
from torch import Tensor, fx, nn

from cnnkit import lanes
from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.extras import require
from cnnkit.core.modules import unwrapped
from cnnkit.core.timing import fastest, measure
from cnnkit.deploy.fold import fold
from cnnkit.ops.convolutions import use_fastest_outputs
from cnnkit.ops.layout import lay_out

__all__ = ["Runner", "optimise_for_inference", "to_onnx"]

Engine = Literal["auto", "torch", "onnxruntime", "lanes"]
FULL = 16  # images, which fill the lanes


@dataclass(frozen=True)
class Runner:
    """Maps float images N x C x H x W, any N, to float32 logits N x classes."""

    engine: str
    precision: str
    seconds: dict[str, float]
    """Per batch, of each engine that was benchmarked."""
    run: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        return self.run(x)


def optimise_for_inference(
    net: nn.Module,
    image: tuple[int, int, int],
    batch: int = 1,
    precision: Literal["fp32", "bf16"] = "fp32",
    engine: Engine = "auto",
) -> Runner:
    """Return a fast equivalent of `net` for predicting batches of about `batch` images C x H x W.

    Batch normalisation is folded, memory is channels-last, and in fp32 on a CPU each convolution uses its fastest
    algorithm for such a batch. "auto" is the fastest engine of torch and, for a net on the CPU, ONNX Runtime, if it is
    installed, and lanes, if they support the net and the batch fills them. bf16 is computed by torch only and gives
    logits of about three digits. `net` is not changed. Raises UsageError for another engine or precision, and for a
    net that lanes do not support; CnnkitError if the engine, or a C++ compiler, is missing.
    """
    if precision not in ("fp32", "bf16"):
        raise unknown("precision", precision, ("fp32", "bf16"))
    if engine not in ENGINES and engine != "auto":
        raise unknown("engine", engine, ("auto", *ENGINES))
    net = unwrapped(net)
    device = next(net.parameters()).device
    exact = device.type == "cpu" and precision == "fp32"
    possible = ["torch"]
    if exact and find_spec("onnxruntime") and find_spec("onnxscript"):
        possible.append("onnxruntime")
    if exact and batch >= FULL and lanes.unsupported_reason(net, image) is None:
        possible.append("lanes")
    if engine in ("onnxruntime", "lanes") and not exact:
        raise UsageError(f"engine {engine} supports fp32 on the CPU only: use engine auto")
    chosen = possible if engine == "auto" else [engine]
    net = copy.deepcopy(net).eval()
    x = torch.rand(batch, *image, device=device)
    runs = {name: ENGINES[name](net, x, precision) for name in chosen}
    seconds = measure({name: partial(run, x) for name, run in runs.items()}, device)
    best = fastest(seconds)
    return Runner(best, precision, seconds, runs[best])


def to_onnx(net: nn.Module, image: tuple[int, int, int]) -> bytes:
    """Return the net as an ONNX model: `images`, N x C x H x W, to `logits`.

    Raises CnnkitError, saying what to install, if onnx or onnxscript is missing.
    """
    require("onnxscript", "export")
    net = unwrapped(net)
    x = torch.zeros(2, *image, device=next(net.parameters()).device)
    output, level = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(output):  # the exporter prints
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                net.eval(), (x,), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    finally:
        logging.disable(level)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _torch(net: nn.Module, x: Tensor, precision: str) -> Callable[[Tensor], Tensor]:
    try:
        ready: nn.Module = fold(net)
    except (fx.proxy.TraceError, TypeError, UsageError):  # control flow that depends on the input
        ready = net
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    ready.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap in torch's stubs
    if x.device.type == "cpu" and precision == "fp32":
        use_fastest_outputs(ready, lay_out(x))

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        logits: Tensor = ready(lay_out(x.to(dtype)))
        return logits.float()

    return run


def _onnxruntime(net: nn.Module, x: Tensor, precision: str) -> Callable[[Tensor], Tensor]:
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    if torch.get_num_threads() < (os.cpu_count() or 1):  # else it pins a thread to each processor
        options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(to_onnx(net, _image(x)), options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        [logits] = session.run(None, {"images": x.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


def _lanes(net: nn.Module, x: Tensor, precision: str) -> Callable[[Tensor], Tensor]:
    net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stubs
    engine, one_at_a_time = lanes.Engine(net, _image(x)), Lock()

    def run(x: Tensor) -> Tensor:
        with one_at_a_time:  # all calls share the engine's buffers
            return engine.predict(x)

    return run


def _image(x: Tensor) -> tuple[int, int, int]:
    return x.shape[1], x.shape[2], x.shape[3]


ENGINES: dict[str, Callable[[nn.Module, Tensor, str], Callable[[Tensor], Tensor]]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "lanes": _lanes,
}
