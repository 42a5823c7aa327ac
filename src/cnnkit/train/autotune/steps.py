"""Candidate plans, benchmarked: training step against step, and convolutions layer by layer.

Half precision is taken only where it makes a step much faster.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError
from cnnkit.core.timing import fastest, measure
from cnnkit.lanes import Engine
from cnnkit.ops import compile_pooling
from cnnkit.ops.convolutions import fastest_algorithms
from cnnkit.ops.tuned import Algorithms
from cnnkit.train.autotune.cuda_graph import CudaGraphStep
from cnnkit.train.autotune.plan import Plan, lanes_plan, threads, use_plan
from cnnkit.train.config import TrainConfig

__all__ = ["Autotuner"]

SHORT = 0.1  # seconds of a step, below which memory format and threads are worth a benchmark
# speed-up from which on a choice is taken: noise wins some, and half precision costs digits
GAINS = {
    "engine": 1.2,
    "precision": 1.2,
    "memory_format": 1.05,
    "threads": 1.1,
    "compiled": 1.1,
    "graph": 1.1,
    "pooling": 1.0,
    "convolutions": 1.02,
}
COMPILING_WORTH = 900.0  # seconds of training on a GPU; compiling takes about sixty, twice
MATRIX_SIZE = 512  # of a matrix product that shows whether half precision is worth benchmarking a step
FAR = 3.0  # ratio of two precisions' steps with oneDNN alone that no algorithm makes up for


class Autotuner:
    """Benchmarks plans for a net in training mode on images N x C x H x W."""

    def __init__(self, net: nn.Module, x: Tensor):
        self.net, self.x, self.device = net, x, x.device
        self.seconds = 0.0  # of a step by the best plan so far
        self.algorithms: dict[str, dict[str, Algorithms]] = {}  # the fastest ones, by plan
        self.y = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def choose(self, plan: Plan, config: TrainConfig, graph: bool, steps: float) -> Plan:
        """Return the best plan for a run of `steps` steps: one choice after the other, each on top of the last."""
        on_cpu = self.device.type == "cpu"
        self.seconds = measure({plan.engine: self._step(plan)}, self.device)[plan.engine]
        if graph:
            plan = self._if_possible(plan, "graph")
        if config.precision == "auto":
            plan = self._precision(plan, on_cpu and not plan.compiled)
        if self.device.type == "cuda" and not plan.compiled and steps * self.seconds > COMPILING_WORTH:
            plan = self._if_possible(plan, "compiled")
        if self.seconds < SHORT:
            plan = self._better(plan, "memory_format", ["contiguous"])
        if on_cpu and self.seconds < SHORT:
            most = torch.get_num_threads()
            plan = self._better(plan, "threads", [number for number in (1, 4) if number < most])
        if on_cpu and not plan.compiled:
            plan = self._fastest(GAINS["convolutions"], [plan, self._tuned(plan)])
        if on_cpu and not plan.compiled and plan.memory_format == "channels_last":
            plan = self._better(plan, "pooling", ["compiled"] if compile_pooling(copy.deepcopy(self.net)) else [])
        return plan

    def _precision(self, plan: Plan, tuned: bool) -> Plan:
        """Return the plan, or the plan in half precision if that is faster by enough.

        If `tuned`, each is benchmarked with its fastest algorithms, unless one is far behind: oneDNN is often slow on
        small maps in one precision only.
        """
        half = plan.model_copy(update={"precision": "bf16"})
        if self.device.type == "cpu" and not self._multiplies_faster_in(torch.bfloat16):
            return plan
        if tuned:
            steps = {candidate.precision: self._step(candidate) for candidate in (plan, half)}
            seconds = measure(steps, self.device).values()
            if max(seconds) < FAR * min(seconds):
                best = self._fastest(GAINS["precision"], [self._tuned(plan), self._tuned(half)])
                return best.model_copy(update={"convolutions": {}})
        return self._better(plan, "precision", ["bf16"])

    def _multiplies_faster_in(self, dtype: torch.dtype) -> bool:
        """Return whether matrix products are faster in this type; if not, a step in it may take a minute."""
        matrices = [torch.rand(MATRIX_SIZE, MATRIX_SIZE).to(each) for each in (torch.float32, dtype)]
        products = {matrix.dtype: partial(torch.mm, matrix, matrix) for matrix in matrices}
        return fastest(measure(products, self.device)) == dtype

    def _tuned(self, plan: Plan) -> Plan:
        """Return the plan with each convolution's fastest algorithms."""
        if str(plan) not in self.algorithms:
            net = copy.deepcopy(self.net)
            use_plan(net, plan)
            with threads(plan.threads):
                dtype = plan.half or torch.float32
                self.algorithms[str(plan)] = fastest_algorithms(net, self.x, plan.memory_format, dtype)
        return plan.model_copy(update={"convolutions": self.algorithms[str(plan)]})

    def choose_engine(self, plan: Plan) -> Plan:
        """Return the plan, or the plan for lanes if that is faster by enough."""
        net = copy.deepcopy(self.net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        try:
            lanes = Engine(net, (self.x.shape[1], self.x.shape[2], self.x.shape[3]))
        except CnnkitError:  # it cannot be compiled here
            return plan
        steps: dict[str, Callable[[], object]] = {
            "torch": self._step(plan),
            "lanes": partial(lanes.gradients, self.x, self.y),
        }
        return lanes_plan() if fastest(measure(steps, self.device), GAINS["engine"]) == "lanes" else plan

    def _if_possible(self, plan: Plan, field: str) -> Plan:
        """Return the plan, or the plan with the field set if that works here and is faster by enough."""
        try:
            return self._better(plan, field, [True])
        except RuntimeError:
            return plan

    def _better(self, plan: Plan, field: str, values: list[Any]) -> Plan:
        """Return the plan, or the plan with one of the values of a field if that is faster by enough."""
        return self._fastest(GAINS[field], [plan, *(plan.model_copy(update={field: value}) for value in values)])

    def _fastest(self, gain: float, plans: list[Plan]) -> Plan:
        """Return the first plan, or another one if that is more than `gain` times as fast; don't benchmark only one."""
        if all(plan == plans[0] for plan in plans):
            return plans[0]
        seconds = measure(dict(enumerate(map(self._step, plans))), self.device)
        best = fastest(seconds, gain)
        self.seconds = seconds[best]
        return plans[best]

    def _step(self, plan: Plan) -> Callable[[], object]:
        """Return a function that takes a step by the plan: forward and backward."""
        net = copy.deepcopy(self.net)
        use_plan(net, plan)
        model = torch.compile(net) if plan.compiled else net
        x = plan.lay_out(self.x)

        def work(x: Tensor, y: Tensor) -> Tensor:
            with torch.autocast(self.device.type, plan.half, enabled=plan.half is not None):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            loss.backward()
            return loss.detach()

        once = CudaGraphStep(net, work, x, self.y) if plan.graph else work

        def step() -> None:
            with threads(plan.threads):
                once(x, self.y)
                net.zero_grad()

        return step
