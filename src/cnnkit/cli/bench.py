"""`cnnkit bench`: images per second of training and prediction on this machine."""

import copy
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cnnkit.cli.options import ConfigFile, Json, Net
from cnnkit.experiment.config import RunConfig, merge

if TYPE_CHECKING:
    from torch import nn

__all__ = ["bench"]

Shape = tuple[int, int, int]


def bench(
    net: Net = None,
    *,
    config: ConfigFile = None,
    profile: bool = False,
    predict: bool = False,
    json: Json = False,
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Benchmark training and prediction on this machine, with random images.

    Training is measured in images per second, with the execution plan that autotuning finds and without it, and
    compared with the speed of a large matrix multiplication. With --predict, prediction is measured instead, in fp32
    and bf16, with each engine.

    Parameters
    ----------
    profile
        Show the time of a training step by kind of operator.
    predict
        Benchmark prediction in batches of 1 and of 64 images instead of training.
    """
    from cnnkit.cli.console import console, given_flags, print_json
    from cnnkit.core.allocator import keep_large_blocks
    from cnnkit.core.device import pick_device, seed_everything
    from cnnkit.core.errors import UsageError
    from cnnkit.nets import create, entry

    job = merge(given_flags(settings, net), config)
    if profile and predict:
        raise UsageError("--profile profiles training: remove --predict")
    if not isinstance(job.batch_size, int):
        raise UsageError("batch_size auto depends on the data: pass a number, such as --batch-size 64")
    keep_large_blocks()
    channels, own, _ = entry(job.net).input
    pixels = job.image_size or own
    image = (channels, pixels, pixels)
    seed_everything(job.seed)
    arguments: dict[str, Any] = job.model_kwargs | {"image_size": pixels}
    made = create(job.net, **arguments).to(pick_device(job.device))
    facts = {"net": job.net, "image": image, "batch_size": job.batch_size}
    facts |= _prediction(made, image) if predict else _training(made, image, job, profile)
    if json:
        print_json(facts)
        return
    for line in _report(facts):
        console.say(line)


def _training(net: "nn.Module", image: Shape, config: RunConfig, profiled: bool) -> dict[str, Any]:
    from cnnkit.train.autotune.choose import choose_plan
    from cnnkit.train.autotune.plan import plain_plan
    from cnnkit.train.autotune.profile import measure_steps, peak, profile_steps

    assert isinstance(config.batch_size, int)
    device = next(net.parameters()).device
    plan = choose_plan(net, image, config.batch_size, None, config)
    plain = measure_steps(copy.deepcopy(net), image, config.batch_size, config, plain_plan(config))
    planned = measure_steps(copy.deepcopy(net), image, config.batch_size, config, plan)
    most = peak(plan, device)
    return {
        "plan": plan.model_dump(mode="json") | {"text": str(plan)},
        "images_per_second": planned.images_per_second,
        "images_per_second_without_plan": plain.images_per_second,
        "operations_per_second": planned.operations_per_second,
        "peak_operations_per_second": most,
        "profile": profile_steps(net, image, config.batch_size, config, plan) if profiled else None,
    }


def _prediction(net: "nn.Module", image: Shape) -> dict[str, Any]:
    from cnnkit.deploy import optimise_for_inference

    rows = []
    for batch in (1, 64):
        for precision in ("fp32", "bf16"):
            runner = optimise_for_inference(net, image, batch, precision)
            rows.append({"batch": batch, "precision": precision, "engine": runner.engine, "seconds": runner.seconds})
    return {"prediction": rows}


def _report(facts: dict[str, Any]) -> list[str]:
    shape = "x".join(map(str, facts["image"]))
    lines = []
    for row in facts.get("prediction", ()):
        every = ", ".join(f"{name} {1000 * value:.3g} ms" for name, value in row["seconds"].items())
        speed, engine = row["batch"] / row["seconds"][row["engine"]], row["engine"]
        lines.append(f"batches of {row['batch']}, {row['precision']}: {speed:,.0f} images/s by {engine} ({every})")
    if "plan" in facts:
        speed, plain = facts["images_per_second"], facts["images_per_second_without_plan"]
        reached, most = facts["operations_per_second"], facts["peak_operations_per_second"]
        lines += [
            f"plan: {facts['plan']['text']}",
            f"training, batches of {facts['batch_size']}: {speed:,.0f} images/s; without the plan {plain:,.0f}",
            f"{reached / 1e9:,.0f} GFLOP/s, {reached / most:.0%} of the {most / 1e9:,.0f} GFLOP/s of a large matrix "
            "multiplication",
        ]
        step = facts["profile"] or {}
        whole = sum(step.values())
        lines += [f"{kind:30}{1000 * value:9.2f} ms {value / whole:6.1%}" for kind, value in step.items() if value]
    return [f"{facts['net']}, images of {shape}", *lines]
