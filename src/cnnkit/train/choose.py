"""The plan for a net, chosen by trying on the machine at hand: step against step, and layer by layer.

Half precision is taken only where it makes a step a good deal faster.
"""

import copy
import hashlib
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit import __version__
from cnnkit.core.compiler import NO_COMPILER
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import atomic_write, cache_dir, make_folder
from cnnkit.data.batches import Batches
from cnnkit.lanes import Engine
from cnnkit.ops import compile_pooling
from cnnkit.ops.tuned import Algorithms
from cnnkit.train.captured import Captured, uncapturable
from cnnkit.train.config import TrainConfig
from cnnkit.train.lanes import hindrance
from cnnkit.train.operations import operations
from cnnkit.train.optimizer import freeze
from cnnkit.train.plan import Plan, lanes_plan, plain_plan, read_plan, threads, use_plan
from cnnkit.train.race import fastest_algorithms

__all__ = ["choose_plan"]

WORTH = 5e11  # operations of a whole training; a shorter one ends before trying has paid
COMPILING_WORTH = 900.0  # seconds of training on a GPU; compiling takes about one, twice
LANES_WORTH = 5e10  # the same for lanes, whose networks take long for their few operations
ROUNDS = 3  # of steps that count, for each candidate
SHORT, LONG = 0.1, 1.0  # seconds of a step: below, strides and threads matter; above, one round tells enough
SPAN = 0.02  # seconds that a measurement takes at least
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
VARYING = ("processor", "cpu MHz", "apicid", "initial apicid", "core id", "bogomips", "physical id", "siblings")
HOPELESS = 1.5  # times the shortest step: not tried a second time


def choose_plan(
    net: nn.Module,
    image: tuple[int, int, int],
    batch: int,
    images: int | None,
    config: TrainConfig,
    train: Batches | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Return the plan that the settings ask for, to train `net` with batches of images C x H x W, `images` in all.

    "auto" tries what there is, a few dozen steps, and keeps it in the cache folder: the same network with the same
    batches, device, torch and number of threads finds it there. Trainings too short for that have the plain plan; None
    stands for a long one. Batches that are known, `train`, may rule out lanes. `net` stays as it is; `say` is told what
    takes its time. Raises UsageError for a file that is no plan, or another network's, and for an engine that cannot
    compute this.
    """
    against = hindrance(net, image, config, train)
    device = next(net.parameters()).device
    no_graph = uncapturable(device, config, train.world if train else 1)
    if config.plan not in ("auto", "off"):
        return _fitting(read_plan(Path(config.plan)), net, config, against, no_graph)
    if config.engine == "lanes":
        if against:
            raise UsageError(f"engine lanes: {against}")
        say("compiling the network for lanes")
        return lanes_plan()
    plan = plain_plan(config)
    work = math.inf if images is None else images * operations(net, image)
    lanes = config.engine == "auto" and work >= LANES_WORTH and not against
    if config.engine == "auto" and work >= LANES_WORTH and against == NO_COMPILER:
        say(f"{NO_COMPILER}: torch computes")
    if config.plan == "off" or (work < WORTH and not lanes):
        return plan
    net = copy.deepcopy(net).train()
    freeze(net, config.freeze)
    file = cache_dir() / "plans" / f"{_key(net, image, batch, config, [lanes, no_graph is None, work >= WORTH])}.json"
    if file.exists():
        with suppress(UsageError):  # a damaged one is made anew
            return read_plan(file)
        file.unlink(missing_ok=True)
    say("trying what is fastest on this machine")
    trial = _Trial(net, torch.rand(batch, *image, device=device))
    if lanes:
        say("compiling the network for lanes")
        plan = trial.engine(plan)
    if plan.engine == "torch" and work >= WORTH:
        plan = trial.choose(plan, config, no_graph is None, math.inf if images is None else images / batch)
    with suppress(CnnkitError, OSError):  # without a cache folder the plan is this run's alone
        _keep_first(file, plan)
        return read_plan(file)
    return plan


def _fitting(plan: Plan, net: nn.Module, config: TrainConfig, against: str | None, no_graph: str | None) -> Plan:
    if plan.graph and no_graph:
        raise UsageError(f"plan {config.plan} computes by a CUDA graph, which this training cannot: {no_graph}")
    if plan.engine == "lanes" and against:
        raise UsageError(f"plan {config.plan} computes in lanes, which this training cannot: {against}")
    if config.engine not in ("auto", plan.engine):
        raise UsageError(f"plan {config.plan} is for {plan.engine}, not {config.engine}: leave out one")
    if wrong := sorted(plan.convolutions.keys() - {name for name, _ in net.named_modules()}):
        raise UsageError(f"plan {config.plan} is another network's: this one has no {', '.join(wrong)}")
    if config.precision not in ("auto", plan.precision):
        raise UsageError(f"plan {config.plan} computes in {plan.precision}, not {config.precision}: leave out one")
    return plan


def _key(net: nn.Module, image: tuple[int, int, int], batch: int, config: TrainConfig, tried: list[bool]) -> str:
    """Return a name for all that a choice depends on."""
    device = next(net.parameters()).device
    facts = {
        "net": repr(net),
        "learns": [parameter.requires_grad for parameter in net.parameters()],
        "batch": [batch, *image],
        "settings": [config.precision, config.compile, *tried],
        "cnnkit": __version__,
        "choices": list(Plan.model_fields),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "torch": [torch.__version__, torch.get_num_threads()],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _processor() -> str:
    """Return what tells this machine's processor from others."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor() or platform.machine()]
    return " ".join(sorted({line for line in lines if not line.startswith(VARYING)}))


def _keep_first(file: Path, plan: Plan) -> None:
    """Write the plan; of several processes that chose one at the same time, the first one's stays."""
    mine = make_folder(file.parent) / f"{file.stem}.{os.getpid()}"
    atomic_write(mine, plan.model_dump_json(indent=1))
    try:
        os.link(mine, file)
    except OSError:  # it is there already, or this file system has no links
        if not file.exists():
            mine.replace(file)
    mine.unlink(missing_ok=True)


class _Trial:
    """A net and images that plans are tried on."""

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
        if tuned:
            seconds = [self._step(candidate)() for candidate in (plan, half)]
            if max(seconds) < HOPELESS * min(seconds):
                best = self._fastest(GAINS["precision"], [self._tuned(plan), self._tuned(half)])
                return best.model_copy(update={"convolutions": {}})
        return self._better(plan, "precision", ["bf16"])

    def _tuned(self, plan: Plan) -> Plan:
        """Return the plan with the algorithms that are the fastest by it."""
        if str(plan) not in self.algorithms:
            self.algorithms[str(plan)] = fastest_algorithms(self.net, self.x, plan)
        return plan.model_copy(update={"convolutions": self.algorithms[str(plan)]})

    def engine(self, plan: Plan) -> Plan:
        """Return the plan, or the one to compute in lanes if that is faster by enough."""
        net = copy.deepcopy(self.net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        try:
            lanes = Engine(net, (self.x.shape[1], self.x.shape[2], self.x.shape[3]))
        except CnnkitError:  # it cannot be compiled here
            return plan
        torchs = self._step(plan)
        seconds = {"torch": [torchs()], "lanes": [self._timed(lambda: lanes.gradients(self.x, self.y))]}
        for _ in range(ROUNDS):
            seconds["torch"].append(torchs())
            seconds["lanes"].append(self._timed(lambda: lanes.gradients(self.x, self.y)))
        own, other = (statistics.median(found) for found in seconds.values())
        return lanes_plan() if own > GAINS["engine"] * other else plan

    @staticmethod
    def _timed(work: Callable[[], object]) -> float:
        start, count = time.perf_counter(), 0
        while not count or time.perf_counter() - start < SPAN:
            work()
            count += 1
        return (time.perf_counter() - start) / count

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

        def step() -> float:
            steps, start = 0, time.perf_counter()
            with threads(plan.threads):
                while not steps or time.perf_counter() - start < SPAN:
                    once(x, self.y)
                    net.zero_grad()
                    steps += 1
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            return (time.perf_counter() - start) / steps

        step()  # it warms up, and compiles
        return step
