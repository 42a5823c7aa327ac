"""Plans in a contest: step against step, and layer by layer.

Half precision is taken only where it makes a step a good deal faster.
"""

import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.device import wait_for
from cnnkit.core.errors import CnnkitError
from cnnkit.core.timing import mean_seconds
from cnnkit.lanes import Engine
from cnnkit.ops import compile_pooling
from cnnkit.ops.convolutions import fastest_algorithms
from cnnkit.ops.tuned import Algorithms
from cnnkit.train.autotune.cuda_graph import Captured
from cnnkit.train.autotune.plan import Plan, lanes_plan, threads, use_plan
from cnnkit.train.config import TrainConfig

__all__ = ["Contest"]

ROUNDS = 3  # of steps that count, for each candidate
SHORT, LONG = 0.1, 1.0  # seconds of a step: below, strides and threads matter; above, one round tells enough
# times as fast as without it, for a choice to be taken: noise wins some, and half precision costs digits
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
SIDE = 512  # of a matrix that tells whether half precision is worth a step
HOPELESS = 1.5  # times the shortest step: not tried a second time
FAR = 3.0  # times the shortest step with oneDNN alone, of two precisions: no algorithm makes up for that


class Contest:
    """A net in training mode, and images N x C x H x W, that plans are tried on."""

    def __init__(self, net: nn.Module, x: Tensor):
        self.net, self.x, self.device = net, x, x.device
        self.seconds = 0.0  # of a step by the best plan so far
        self.algorithms: dict[str, dict[str, Algorithms]] = {}  # that won the race, by plan
        self.y = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def choose(self, plan: Plan, config: TrainConfig, graph: bool, steps: float) -> Plan:
        """Return the best plan for so many steps: one choice after the other, each on top of those before."""
        on_cpu = self.device.type == "cpu"
        self.seconds = self._step(plan)()
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
        """Return the plan or it in half precision; tuned, each is tried with its best algorithms unless one is far off.

        What is slow in one of them is often oneDNN's way with small maps.
        """
        half = plan.model_copy(update={"precision": "bf16"})
        if self.device.type == "cpu" and not self._multiplies_faster_in(torch.bfloat16):
            return plan
        if tuned:
            seconds = [self._step(candidate)() for candidate in (plan, half)]
            if max(seconds) < FAR * min(seconds):
                best = self._fastest(GAINS["precision"], [self._tuned(plan), self._tuned(half)])
                return best.model_copy(update={"convolutions": {}})
        return self._better(plan, "precision", ["bf16"])

    def _multiplies_faster_in(self, dtype: torch.dtype) -> bool:
        """Return whether matrices are multiplied faster in this type; if not, a step in it may take a minute."""
        matrix = torch.rand(SIDE, SIDE)
        seconds = {}
        for each in (torch.float32, dtype):
            one = matrix.to(each)
            seconds[each] = min(mean_seconds(partial(torch.mm, one, one)) for _ in range(ROUNDS))
        return seconds[dtype] < seconds[torch.float32]

    def _tuned(self, plan: Plan) -> Plan:
        """Return the plan with the algorithms that are the fastest by it."""
        if str(plan) not in self.algorithms:
            net = copy.deepcopy(self.net)
            use_plan(net, plan)
            with threads(plan.threads):
                dtype = plan.half or torch.float32
                self.algorithms[str(plan)] = fastest_algorithms(net, self.x, plan.memory_format, dtype)
        return plan.model_copy(update={"convolutions": self.algorithms[str(plan)]})

    def engine(self, plan: Plan) -> Plan:
        """Return the plan, or the one to compute in lanes if that is faster by enough."""
        net = copy.deepcopy(self.net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        try:
            lanes = Engine(net, (self.x.shape[1], self.x.shape[2], self.x.shape[3]))
        except CnnkitError:  # it cannot be compiled here
            return plan
        torchs = self._step(plan)
        seconds = {"torch": [torchs()], "lanes": [mean_seconds(lambda: lanes.gradients(self.x, self.y))]}
        for _ in range(ROUNDS):
            seconds["torch"].append(torchs())
            seconds["lanes"].append(mean_seconds(lambda: lanes.gradients(self.x, self.y)))
        own, other = (statistics.median(found) for found in seconds.values())
        return lanes_plan() if own > GAINS["engine"] * other else plan

    def _if_possible(self, plan: Plan, field: str) -> Plan:
        """Return the plan, or it with the field set if that is faster by enough and the net, or torch, can do it."""
        try:
            return self._better(plan, field, [True])
        except RuntimeError:
            return plan

    def _better(self, plan: Plan, field: str, values: list[Any]) -> Plan:
        """Return the plan, or it with one of the values if that is faster by enough."""
        return self._fastest(GAINS[field], [plan, *(plan.model_copy(update={field: value}) for value in values)])

    def _fastest(self, gain: float, plans: list[Plan]) -> Plan:
        """Return the first plan, or another one if that is so many times as fast; alone it is not run."""
        if all(plan == plans[0] for plan in plans):
            return plans[0]
        steps = [self._step(candidate) for candidate in plans]
        first = [step() for step in steps]
        racing = [index for index in range(len(plans)) if index == 0 or first[index] < HOPELESS * min(first)]
        times = {index: [first[index]] for index in racing}
        for _ in range(ROUNDS - 1 if min(first) < LONG else 0):
            for index in racing:
                times[index].append(steps[index]())
        medians = {index: statistics.median(found) for index, found in times.items()}
        best = min(medians, key=lambda index: medians[index])
        best = best if medians[0] > gain * medians[best] else 0
        self.seconds = medians[best]
        return plans[best]

    def _step(self, plan: Plan) -> Callable[[], float]:
        """Return what takes a step by the plan and returns its seconds: the mean of several, where it is short."""
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

        once = Captured(net, work, x, self.y) if plan.graph else work

        def once_more() -> None:
            once(x, self.y)
            net.zero_grad()

        def step() -> float:
            with threads(plan.threads):
                return mean_seconds(once_more, wait=partial(wait_for, self.device))

        step()  # it warms up, and compiles
        return step
