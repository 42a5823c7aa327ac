"""The plan for a net: benchmarked on this machine, and cached."""

import copy
import hashlib
import json
import logging
import math
from contextlib import suppress
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import nn

from cnnkit import __version__
from cnnkit.core.cache import cache_folder, read_record, to_record
from cnnkit.core.compiler import NO_COMPILER
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import atomic_write, lock, make_folder, sweep
from cnnkit.core.modules import unwrapped
from cnnkit.core.places import cache_dir
from cnnkit.core.processor import processor
from cnnkit.data.batches import Batches
from cnnkit.train.autotune import cuda_graph
from cnnkit.train.autotune.flops import operations
from cnnkit.train.autotune.plan import Plan, lanes_plan, plain_plan, read_plan
from cnnkit.train.autotune.steps import Autotuner
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import ALONE, World
from cnnkit.train.lanes import image_size
from cnnkit.train.lanes import unsupported_reason as lanes_unsupported_reason
from cnnkit.train.optimizer import freeze

__all__ = ["choose_plan", "plan_training", "requested_plan"]

log = logging.getLogger(__name__)

Size = tuple[int, int, int]  # C, H, W

PLANS, PLAN = "plans", TypeAdapter(Plan)
WORTH = 5e11  # operations of a training; a shorter one ends before the benchmarks pay off
LANES_WORTH = 5e10  # the same for lanes: small networks take long for their few operations


def plan_training(net: nn.Module, train: Batches, config: TrainConfig, world: World = ALONE) -> Plan:
    """Return the plan to train `net` on these batches; the main process chooses it for all ranks.

    It fits the part of a batch that one rank computes at once.
    """
    if not world.is_main:
        return world.broadcast(plain_plan(config))
    batch = sum(train.sizes[:1]) // world.size // config.accumulate
    images = config.epochs * train.num_images // world.size
    return world.broadcast(choose_plan(unwrapped(net), image_size(train), max(batch, 2), images, config, train))


def requested_plan(net: nn.Module, image: Size, config: TrainConfig, train: Batches | None = None) -> Plan | None:
    """Return the plan that the settings name, of a file or for lanes; None if `choose_plan` has to choose one.

    Raises UsageError for a file that is not a plan or belongs to another network, and for an engine that does not
    support this training run.
    """
    against, no_graph = _unsupported_reasons(net, image, config, train)
    if config.plan not in ("auto", "off"):
        return _fitting(read_plan(Path(config.plan)), config.plan, net, config, against, no_graph)
    if config.engine != "lanes":
        return None
    if against:
        raise UsageError(f"lanes: {against}; use --engine torch")
    return lanes_plan()


def choose_plan(
    net: nn.Module,
    image: Size,
    batch: int,
    images: int | None,
    config: TrainConfig,
    train: Batches | None = None,
) -> Plan:
    """Return the plan of the settings, to train `net` with batches of `batch` images C x H x W, `images` in all.

    "auto" benchmarks candidates, a few dozen steps, and caches the result: the same network with the same batches,
    device, torch and number of threads finds it there. Trainings too short for that get the plain plan; `images` None
    is a long one. `train`, if known, may rule out lanes. `net` is not changed. Raises UsageError for a file that is
    not a plan or belongs to another network, and for an engine that does not support this training.
    """
    if requested := requested_plan(net, image, config, train):
        if requested.engine == "lanes":
            log.info("compiling the network for lanes")
        return requested
    against, no_graph = _unsupported_reasons(net, image, config, train)
    plan = plain_plan(config)
    work = math.inf if images is None else images * operations(net, image)
    lanes = config.engine == "auto" and work >= LANES_WORTH and not against
    if config.engine == "auto" and work >= LANES_WORTH and against == NO_COMPILER:
        log.info("%s: training with torch", NO_COMPILER)
    if config.plan == "off" or (work < WORTH and not lanes):
        return plan
    net = copy.deepcopy(net).train()
    freeze(net, config.freeze)
    name = f"{_key(net, image, batch, config, [lanes, no_graph is None, work >= WORTH])}.json"
    if cached := _cached(cache_dir() / PLANS / name, net, config, against, no_graph):
        return cached
    log.info("benchmarking plans on this machine")
    tuner = Autotuner(net, torch.rand(batch, *image, device=next(net.parameters()).device))
    if lanes:
        log.info("compiling the network for lanes")
        plan = tuner.choose_engine(plan)
    if plan.engine == "torch" and work >= WORTH:
        plan = tuner.choose(plan, config, no_graph is None, math.inf if images is None else images / batch)
    with suppress(CnnkitError):  # without a cache the plan is for this run only
        file = cache_folder(PLANS) / name
        _cache_first(file, plan)
        return _cached(file, net, config, against, no_graph) or plan
    return plan


def _unsupported_reasons(
    net: nn.Module, image: Size, config: TrainConfig, train: Batches | None
) -> tuple[str | None, str | None]:
    """Return why this training run cannot use lanes, and why not a CUDA graph."""
    processes = train.world if train else 1
    no_graph = cuda_graph.unsupported_reason(next(net.parameters()).device, config, processes)
    return lanes_unsupported_reason(net, image, config, train), no_graph


def _cached(file: Path, net: nn.Module, config: TrainConfig, against: str | None, no_graph: str | None) -> Plan | None:
    """Return the plan in the cache; None if there is none or, with a warning, if it cannot be used."""
    try:
        if plan := read_record(file, PLAN):
            return _fitting(plan, str(file), net, config, against, no_graph)
    except UsageError as error:
        log.warning("%s: choosing a new plan", error)
    with suppress(OSError):
        file.unlink()
    return None


def _fitting(
    plan: Plan, file: str, net: nn.Module, config: TrainConfig, against: str | None, no_graph: str | None
) -> Plan:
    """Return the plan from a file; raise UsageError if this training does not support it."""
    if plan.graph and no_graph:
        raise UsageError(f"plan {file} uses a CUDA graph, which this training does not support: {no_graph}")
    if plan.engine == "lanes" and against:
        raise UsageError(f"plan {file} uses lanes, which this training does not support: {against}")
    if config.engine not in ("auto", plan.engine):
        raise UsageError(f"plan {file} is for {plan.engine}, not {config.engine}: leave out one")
    if wrong := sorted(plan.convolutions.keys() - {name for name, _ in net.named_modules()}):
        raise UsageError(f"plan {file} belongs to another network: this one has no {', '.join(wrong)}")
    if config.precision not in ("auto", plan.precision):
        raise UsageError(f"plan {file} computes in {plan.precision}, not {config.precision}: leave out one")
    return plan


def _key(net: nn.Module, image: Size, batch: int, config: TrainConfig, tried: list[bool]) -> str:
    """Return a name for everything that the choice depends on."""
    device = next(net.parameters()).device
    facts = {
        "net": repr(net),
        "learns": [parameter.requires_grad for parameter in net.parameters()],
        "batch": [batch, *image],
        "settings": [config.precision, config.compile, *tried],
        "cnnkit": __version__,
        "choices": list(Plan.model_fields),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "torch": [torch.__version__, torch.get_num_threads()],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _cache_first(file: Path, plan: Plan) -> None:
    """Write the plan, unless another process that chose one at the same time was first."""
    folder = make_folder(file.parent)
    with lock(folder.with_name(f".{folder.name}.lock")):
        sweep(file)
        if read_record(file, PLAN) is None:
            atomic_write(file, to_record(plan.model_dump(mode="json")))
