"""The C++ of a network: cpp/net.hpp.in, filled in with its layers' declarations and the phases of a training step.

Batch normalisation needs the whole batch, so it ends a phase; within a phase, threads compute their groups of images
independently.
"""

import math
from collections.abc import Iterator
from itertools import chain
from string import Template

from torch import Tensor

from cnnkit.core.compiler import texts
from cnnkit.lanes.layers import Barrier, Code, Layer, Mode, Size, Slots

__all__ = ["aligned_size", "generate"]

ALIGNED = 16  # floats
Placed = list[tuple[Layer, Slots]]


def generate(layers: list[Layer], image: Size) -> dict[str, str]:
    """Return the C++ files, by name, of a chain of layers for images C x H x W; the same layers give the same files."""
    files = texts("cnnkit.lanes")
    placed = list(zip(layers, _allocate(layers), strict=True))
    declared = [(at.type, layer.declare(at)) for layer, at in placed]
    outputs = [f"v {at.y.removeprefix('work.')}[{math.prod(layer.output)}];" for layer, at in placed if at.y != at.x]
    parameters = [parameter for layer in layers for parameter in layer.module.parameters()]
    phases, begins = _split(_step(placed))
    measure, begin_measure = _split(_forward(placed, "measure"))
    predict, begin_predict = _split(_forward(placed, "predict"))
    fields = {
        "types": [f"using {name} = {declaration.type};" for name, declaration in declared if declaration.type],
        "workspace": [*outputs, *(declaration.workspace for _, declaration in declared)],
        "state": [declaration.state for _, declaration in declared],
        "begin_phase": _cases(begins),
        "run_phase": _cases(phases),
        "begin_measure": _cases(begin_measure),
        "measure": _cases(measure[:-1]),  # what follows the last norm is not needed
        "begin_predict": list(chain(*begin_predict)),
        "predict": list(chain(*predict)),
        "logits": [placed[-1][1].y],
        "image": [", ".join(map(str, image))],
        "classes": [str(layers[-1].output[0])],
        "largest": [str(max(math.prod(layer.output) for layer in layers))],
        "num_parameters": [str(len(parameters))],
        "num_gradients": [str(sum(map(aligned_size, parameters)))],
        "num_phases": [str(len(phases))],
        "num_norms": [str(len(measure) - 1)],
    }
    skeleton = Template(files.pop("net.hpp.in"))
    text = skeleton.substitute({name: "\n".join(filter(None, lines)) for name, lines in fields.items()})
    return files | {"net.hpp": text}


def aligned_size(parameter: Tensor) -> int:
    """Return the number of floats from the start of a parameter's gradient to the next one, which is aligned."""
    return -(-parameter.numel() // ALIGNED) * ALIGNED


def _allocate(layers: list[Layer]) -> Iterator[Slots]:
    """Yield where each layer finds its data; gradients alternate between two buffers."""
    x, parameter, gradient, statistic = "work.x", 0, 0, 0
    for number, layer in enumerate(layers):
        overwrites = layer.in_place and not (number and layers[number - 1].backward_reads_output)
        y = x if overwrites else f"work.y{number}"
        dy, dx = (f"work.d{sum(each.moves_gradient for each in layers[first:]) % 2}" for first in (number + 1, number))
        values, gradients = [], []
        for tensor in layer.module.parameters():
            values.append(f"job.parameters[{parameter}].value")
            gradients.append(f"state.gradients + {gradient}")
            parameter, gradient = parameter + 1, gradient + aligned_size(tensor)
        weight, bias, *_ = *values, "nullptr", "nullptr"
        dw, db, *_ = *gradients, "nullptr", "nullptr"
        statistics = f"job.statistics[{statistic}], job.statistics[{statistic + 1}]"
        yield Slots(number, f"L{number}", x, y, dy, dx, weight, bias, f"{dw}, {db}", statistics)
        x, statistic = y, statistic + layer.num_statistics


def _forward(placed: Placed, mode: Mode) -> Code:
    return chain.from_iterable(layer.forward(at, mode) for layer, at in placed)


def _step(placed: Placed) -> Code:
    yield from _forward(placed, "train")
    layer, at = placed[-1]
    arguments = f"{at.y}, {at.dy}, labels, work.images, job.smoothing, scale, state.loss, state.correct"
    yield f"cross_entropy<Out::size>({arguments});"
    first = next(number for number, (layer, _) in enumerate(placed) if any(True for _ in layer.module.parameters()))
    for layer, at in reversed(placed[first:]):
        yield from layer.backward(at, first=at.number == first)


def _split(code: Code) -> tuple[list[list[str]], list[list[str]]]:
    """Return the lines of each phase, for a group of images, and the lines that each thread runs before it."""
    phases: list[list[str]] = [[]]
    begins: list[list[str]] = [[]]
    for each in code:
        if isinstance(each, Barrier):
            phases.append([])
            begins.append(each.lines)
        else:
            phases[-1].append(each)
    return phases, begins


def _cases(phases: list[list[str]]) -> list[str]:
    return [line for number, lines in enumerate(phases) for line in (f"case {number}:", *lines, "break;")]
