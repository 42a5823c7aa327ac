"""The C++ of a network: its layers as templates with their sizes, and the phases of a training step.

Batch normalisation has to see the whole batch, so it ends a phase: until then each thread goes on alone, group by
group.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from cnnkit.lanes.chain import Layer, Size

__all__ = ["aligned_size", "write_source"]

ALIGNED = 16  # floats


@dataclass
class _Code:
    """A layer's lines, given the names of what they work on; d is the gradient, in one of two buffers."""

    layer: Layer
    number: int
    x: str  # where its input is
    y: str  # where its output is: there too, for activations
    weight: int = -1  # the place of its first weight among all
    start: int = 0  # the place of that weight's first gradient
    norm: int = -1  # the place of its running mean among all buffers
    d: str = ""
    dx: str = ""

    @property
    def type(self) -> str:
        shape = f"Shape<{', '.join(map(str, self.layer.input))}>"
        detail = self.layer.detail
        match self.layer.kind:
            case "conv":
                return f"Conv<{', '.join(map(str, (shape, self.layer.output[0], *detail)))}>"
            case "pool":
                return f"{detail[0]}<{', '.join(map(str, (shape, *detail[1:])))}>"
            case "norm":
                return f"Norm<{shape}>"
        return ""

    @property
    def L(self) -> str:
        return f"L{self.number}"

    @property
    def size(self) -> int:
        return math.prod(self.layer.output)

    @property
    def has_bias(self) -> bool:
        return getattr(self.layer.module, "bias", None) is not None

    @property
    def padded(self) -> bool:
        return self.layer.kind == "conv" and any(self.layer.detail[4:])

    def values(self, which: int = 0) -> str:
        return f"job.weights[{self.weight + which}].value" if not which or self.has_bias else "nullptr"

    def gradients(self) -> str:
        module = self.layer.module
        count = aligned_size(module.weight)  # type: ignore[arg-type]  # it has one
        bias = f"own.gradients + {self.start + count}" if self.has_bias else "nullptr"
        return f"own.gradients + {self.start}, {bias}"

    def buffers(self) -> Iterator[str]:
        if self.y != self.x:
            yield f"v {self.y}[{self.size}];"
        if self.padded:
            yield f"v p{self.number}[{self.L}::padded];"
        if self.layer.kind == "norm":
            yield f"{self.L}::Part n{self.number};"

    @property
    def _input(self) -> str:
        return f"work.p{self.number}" if self.padded else f"work.{self.x}"

    def forward(self, training: bool) -> Iterator[str]:
        x, y = f"work.{self.x}", f"work.{self.y}"
        match self.layer.kind:
            case "conv":
                if self.padded:
                    yield f"{self.L}::pad({x}, {self._input});"
                yield f"{self.L}::forward({self._input}, {y}, {self.values()}, {self.values(1)});"
            case "pool":
                yield f"{self.L}::forward({x}, {y});"
            case "norm":
                yield f"{self.L}::forward({x}, {y}, own.n{self.number}, {self.values()}, {self.values(1)});"
            case "dropout" if training:
                yield f"dropout<{self.size}>({x}, {y}, {_float(self.layer.module.p)}, {self._seed}, work.first);"
            case _:
                if x != y:
                    yield f"memcpy({y}, {x}, sizeof {y});"
                if self.layer.kind == "activation":
                    yield f"activate<{self.layer.detail[0]}, {self.size}>({y});"

    def measure(self) -> str:
        return f"{self.L}::measure(work.{self.x}, work.n{self.number}, work.mask, work.images);"

    def backward(self, last: bool) -> Iterator[str]:
        """Yield what leaves the gradients of the weights, and of the input unless this layer is the `last` to learn."""
        d, dx = f"work.{self.d}", f"work.{self.dx}"
        match self.layer.kind:
            case "conv":
                yield f"{self.L}::gradient({self._input}, {d}, {self.gradients()});"
                if not last:
                    yield f"{self.L}::backward({d}, {dx}, work.scratch, {self.values()});"
            case "pool":
                yield f"{self.L}::backward(work.{self.x}, {d}, {dx});"
            case "norm":
                own = f"own.n{self.number}"
                yield f"{self.L}::backward(work.{self.x}, {d}, work.mask, {own}, {self.values()});"
            case "dropout":
                yield f"dropout<{self.size}>({d}, {d}, {_float(self.layer.module.p)}, {self._seed}, work.first);"
            case "activation":
                yield f"activate_backward<{self.layer.detail[0]}, {self.size}>(work.{self.y}, {d});"

    def collect(self) -> str:
        n = f"n{self.number}"
        return f"{self.L}::collect(work.{self.x}, work.{self.d}, own.{n}, work.{n}, {self.gradients()});"

    @property
    def _seed(self) -> str:
        return f"seed + {self.number * 0x9E3779B9 % 2**32}u"

    def merge(self, training: bool) -> Iterator[str]:
        yield f"{self.L}::merge({self._parts}, groups, {_float(self.layer.module.eps)}, own.n{self.number});"
        follow = f"follow(own.n{self.number}, {_float(self.layer.module.momentum)}, {self._running})"
        yield f"if (main) {self.L}::{follow if training else f'tell(own.n{self.number}, {self._running})'};"

    def merge_backward(self) -> str:
        return f"{self.L}::merge_backward({self._parts}, groups, own.n{self.number});"

    @property
    def _parts(self) -> str:
        return f"[&](int g) -> const {self.L}::Part& {{ return works[g].n{self.number}; }}"

    def use_running(self) -> str:
        return f"{self.L}::use_running({self._running}, {_float(self.layer.module.eps)}, own.n{self.number});"

    @property
    def _running(self) -> str:
        return f"job.buffers[{self.norm}], job.buffers[{self.norm + 1}]"


def write_source(layers: list[Layer], image: Size) -> str:
    """Return the C++ of a chain of layers for images C x H x W; the same sizes and settings give the same text."""
    codes = _name(layers)
    norms = [code for code in codes if code.layer.kind == "norm"]
    weights = [weight for layer in layers for weight in layer.module.parameters()]
    first = next(code for code in codes if any(True for _ in code.layer.module.parameters()))
    phases, begins = _phases(codes, first)
    measured, measures = _forward(codes, training=False)
    gradient = max(math.prod(layer.output) for layer in layers)
    classes = layers[-1].output[0]
    types = [f"using {code.L} = {code.type};  // {code.layer.name}" for code in codes if code.type]
    padded = [f"{code.L}::padded" for code in codes if code.padded]
    work = [
        f"v x[In::size], d0[{gradient}], d1[{gradient}], scratch[{' + '.join(['1', *padded])}], mask;",
        *(line for code in codes for line in code.buffers()),
        "int images, first;",
    ]
    own = [
        "float* gradients;",
        "double loss;",
        "int64_t correct;",
        *(f"{code.L}::Whole n{code.number};" for code in norms),
    ]
    begin = "int phase, const Job& job, Own& own, const Work* works, int groups, bool main"
    predict = [line for code in codes for line in code.forward(training=False)] + [f"return work.{codes[-1].y};"]
    return "\n".join(
        [
            *(f'#include "{name}.hpp"' for name in ("conv", "loss", "norm", "pointwise", "pool", "team")),
            "",
            "struct Net {",
            *_indent(
                [
                    *types,
                    f"using In = Shape<{', '.join(map(str, image))}>;",
                    f"using Out = Shape<{classes}, 1, 1>;",
                    f"static constexpr int weights = {len(weights)}, phases = {len(phases)}, norms = {len(norms)};",
                    f"static constexpr int64_t gradients = {sum(map(aligned_size, weights))};",
                    "",
                    *_block("struct Work", work, ";"),
                    *_block("struct Own", own, ";"),
                    "",
                    *_block(f"static void begin({begin})", _switch(begins)),
                    *_block(
                        "static void run(int phase, const Job& job, const int64_t* labels, uint32_t seed, float scale, "
                        "Work& work, Own& own)",
                        _switch(phases),
                    ),
                    *_block(f"static void begin_measuring({begin})", _switch(measures)),
                    *_block(
                        "static void measure(int phase, const Job& job, Work& work, Own& own)", _switch(measured[:-1])
                    ),
                    *_block(
                        "static void begin_predicting(const Job& job, Own& own)", [code.use_running() for code in norms]
                    ),
                    *_block("static const v* predict(const Job& job, Work& work, Own& own)", predict),
                ]
            ),
            "};",
            "",
            'extern "C" {',
            "int lanes() { return LANES; }",
            "void* start(int threads) { return new Team<Net>(threads); }",
            "void stop(void* team) { delete static_cast<Team<Net>*>(team); }",
            "void train(void* team, const Job* job) { static_cast<Team<Net>*>(team)->train(*job); }",
            "void measure(void* team, const Job* job) { static_cast<Team<Net>*>(team)->measure(*job); }",
            "void predict(void* team, const Job* job) { static_cast<Team<Net>*>(team)->predict(*job); }",
            "}",
            "",
        ]
    )


def _name(layers: list[Layer]) -> list[_Code]:
    codes: list[_Code] = []
    x, weight, start, norm = "x", 0, 0, 0
    for number, layer in enumerate(layers):
        in_place = layer.kind == "activation" and (number == 0 or layers[number - 1].kind != "activation")
        code = _Code(layer, number, x, x if in_place else f"y{number}", weight, start, norm)
        codes.append(code)
        x = code.y
        for parameter in layer.module.parameters():
            weight, start = weight + 1, start + aligned_size(parameter)
        norm += 2 * (layer.kind == "norm")
    d = 0
    for code in reversed(codes):
        code.d = f"d{d}"
        d ^= code.layer.kind in ("conv", "pool")
        code.dx = f"d{d}"
    return codes


def _forward(codes: list[_Code], training: bool) -> tuple[list[list[str]], list[list[str]]]:
    """Return the lines of each phase of the forward pass, for a group, and those that begin it, for a thread."""
    phases: list[list[str]] = [[]]
    begins: list[list[str]] = [[]]
    for code in codes:
        if code.layer.kind == "norm":
            phases[-1].append(code.measure())
            phases.append([])
            begins.append(list(code.merge(training)))
        phases[-1] += code.forward(training)
    return phases, begins


def _phases(codes: list[_Code], first: _Code) -> tuple[list[list[str]], list[list[str]]]:
    """Return the same of a whole step."""
    phases, begins = _forward(codes, training=True)
    last = codes[-1]
    loss = f"cross_entropy<{last.size}>(work.{last.y}, work.{last.d}, labels, work.images, job.smoothing, scale, "
    phases[-1].append(loss + "own.loss, own.correct);")
    for code in reversed(codes[first.number :]):
        if code.layer.kind == "norm":
            phases[-1].append(code.collect())
            phases.append([])
            begins.append([code.merge_backward()])
        phases[-1] += code.backward(last=code is first)
    return phases, begins


def _switch(cases: list[list[str]]) -> list[str]:
    lines = ["switch (phase) {"]
    for number, case in enumerate(cases):
        lines += [f"case {number}:", *_indent([*case, "break;"])]
    return [*lines, "}"]


def _block(head: str, lines: list[str], end: str = "") -> list[str]:
    return [head + " {", *_indent(lines), "}" + end]


def _indent(lines: list[str]) -> list[str]:
    return ["    " + line if line else line for line in lines]


def _float(value: object) -> str:
    return f"{float(value)!r}f"  # type: ignore[arg-type]  # a module's number


def aligned_size(weight: Tensor) -> int:
    """Return how many floats a weight's gradient takes, so that the next one begins where a register may."""
    return -(-weight.numel() // ALIGNED) * ALIGNED
