"""torch's optimisers as the structures that the compiled update reads, over torch's own state."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.lanes.library import Optimizer, Parameter

__all__ = ["address", "describe", "read_optimizer"]

KINDS: dict[type[torch.optim.Optimizer], int] = {torch.optim.SGD: 1, torch.optim.Adam: 2, torch.optim.AdamW: 3}
ADAM_STATE = ("exp_avg", "exp_avg_sq")
SHARED = ("momentum", "nesterov", "betas", "eps")  # must be equal in all groups
HONOURED = {*SHARED, "params", "lr", "factor", "weight_decay"}
NEUTRAL = {  # change no value: torch's implementations, names, and what its schedulers store
    *("foreach", "fused", "capturable", "differentiable", "param_names"),
    *("initial_lr", "min_lr", "max_lr", "base_momentum", "max_momentum"),
}


def read_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[Optimizer, list[Parameter], list[dict[str, Any]]]:
    """Return the optimiser, its parameters, and the states of those for which it counts steps; new states are zeros.

    Raises UsageError for another optimiser, and for an option that the compiled update does not have.
    """
    kind = KINDS.get(type(optimizer))
    if kind is None:
        name = type(optimizer).__name__
        raise UsageError(f"lanes: {name} is not supported; use SGD, Adam or AdamW, or --engine torch")
    _check_options(optimizer)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    shared = optimizer.param_groups[0]
    betas = shared.get("betas", (0.0, 0.0))
    names = ADAM_STATE if kind > 1 else ("momentum_buffer",) if shared["momentum"] else ()
    settings = Optimizer(
        kind, shared.get("nesterov", False), shared.get("momentum", 0.0), *betas, shared.get("eps", 0.0)
    )
    described, counting = [], []
    for parameter in parameters:
        group = groups.get(id(parameter))
        if group is None or not parameter.requires_grad:
            described.append(describe(parameter))
            continue
        state = optimizer.state[parameter]
        for name in names:
            if state.get(name) is None:
                state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        if kind > 1:
            counting.append(state)
            settings.steps_taken = int(state.setdefault("step", torch.zeros((), dtype=torch.float32)))
        described.append(describe(parameter, [state[name] for name in names], group))
    return settings, described, counting


def describe(parameter: Tensor, moments: Sequence[Tensor] = (), group: Mapping[str, Any] | None = None) -> Parameter:
    """Return a parameter with its moments and the options of its group; without a group it does not learn."""
    moment1, moment2 = ([address(moment) for moment in moments] + [None, None])[:2]
    options = group or {}
    factor, decay = options.get("factor", 1.0), options.get("weight_decay", 0.0)
    return Parameter(address(parameter), moment1, moment2, parameter.numel(), factor, decay, group is not None)


def address(tensor: object) -> int:
    """Return the address of a tensor's values; raises UsageError unless they are float32 in contiguous memory."""
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or not tensor.is_contiguous():
        raise UsageError(
            "lanes: parameters must be float32 in contiguous memory; call "
            "net.float().to(memory_format=torch.contiguous_format)"
        )
    return tensor.data_ptr()


def _check_options(optimizer: torch.optim.Optimizer) -> None:
    """Raise UsageError for an option that is not honoured and differs from torch's default."""
    defaults = _defaults(type(optimizer))  # type: ignore[arg-type]  # mypy: a class has no hash
    shared = optimizer.param_groups[0]
    for group in optimizer.param_groups:
        for name, value in group.items():
            if name not in HONOURED | NEUTRAL and (name not in defaults or value != defaults[name]):
                raise UsageError(f"lanes: the optimizer's {name}={value!r} is not supported; use --engine torch")
        if wrong := [name for name in SHARED if group.get(name) != shared.get(name)]:
            raise UsageError(
                f"lanes: parameter groups differ in {', '.join(wrong)}; make it equal, or use --engine torch"
            )


@cache
def _defaults(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    return kind([torch.zeros(1)]).defaults  # type: ignore[call-arg]  # each kind has its own
