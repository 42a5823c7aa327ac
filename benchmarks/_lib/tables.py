"""The tables of the results: each kind of result is an entry in KINDS, its columns computed from the raw figures."""

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from _lib.work import AUGMENT_BATCH, COSTS, LANES_EPOCH, LANES_PART, REPORTED, WORK

Figures = dict[str, Any]
Row = dict[str, Any]  # the raw figures behind a line of a table


@dataclass(frozen=True)
class Each:
    """A column for each contestant of a row's `seconds`; `{}` in its header stands for the contestant's name."""

    value: Callable[[Row, str], float]
    format: str
    without: tuple[str, ...] = ()
    averaged: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of result: what measures it, and how its table follows from the raw figures."""

    title: str
    command: str
    columns: dict[str, Callable[[Row], str] | Each]
    rows: Callable[[Figures], list[Row]]
    means: dict[str, Callable[[Row], bool]] = field(default_factory=dict)  # lines of geometric means over these rows
    note: str = ""

    def table(self, figures: Figures) -> list[list[str]]:
        """Return the header and the lines of the table."""
        rows = self.rows(figures)
        columns: list[list[str]] = []
        for header, column in self.columns.items():
            if isinstance(column, Each):
                columns += [self._column(column, header, name, rows) for name in _contestants(rows, column.without)]
            else:
                below = [""] * len(self.means) if columns else [*self.means]
                columns.append([header, *map(column, rows), *below])
        return [list(line) for line in zip(*columns, strict=True)]

    def _column(self, column: Each, header: str, name: str, rows: list[Row]) -> list[str]:
        values = [column.value(row, name) for row in rows]
        means = []
        for counts in self.means.values():
            counted = [value for row, value in zip(rows, values, strict=True) if counts(row)]
            means.append(_geometric_mean(counted) if column.averaged and counted else "")
        return [header.format(name), *(f"{value:{column.format}}" for value in values), *means]


def markdown(table: list[list[str]]) -> str:
    """Return a table as Markdown, its first line the header."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [table[0], ["---"] * len(table[0]), *table[1:]])


def _contestants(rows: list[Row], without: tuple[str, ...]) -> list[str]:
    """Return the contestants that have seconds in every row."""
    return [name for name in rows[0]["seconds"] if name not in without and all(name in row["seconds"] for row in rows)]


def _geometric_mean(values: list[float]) -> str:
    return f"{math.exp(statistics.fmean(map(math.log, values))):.2f}"


def _median(row: Row, name: str) -> float:
    return statistics.median(row["seconds"][name])


def _ratio(row: Row, name: str, other: str) -> float:
    """Return the median over the rounds of `name`'s seconds divided by `other`'s."""
    return statistics.median(a / b for a, b in zip(row["seconds"][name], row["seconds"][other], strict=True))


def _keyed(figures: Figures) -> list[Row]:
    return [{"key": key} | row for key, row in figures.items()]


def _by_command(figures: Figures) -> list[Row]:
    return sorted(_keyed(figures), key=lambda row: row["command"])


def _seconds(figures: Figures) -> list[Row]:
    return [{"key": key, "seconds": seconds} for key, seconds in figures.items()]


def _key(row: Row) -> str:
    return str(row["key"])


def _command(row: Row) -> str:
    return f"`{row['command']}`"


def _of_seeds(function: Callable[[Any], float], row: Row) -> str:
    return f"{function(row['accuracy'].values()):.4f}"


def _augmentations(figures: Figures) -> list[Row]:
    rows = []
    for key, seconds in figures.items():
        name, _, images = key.partition(" at ")
        rows += [{"images": images, "name": name, "by": by, "seconds": seconds} for by in seconds]
    return rows


def _reached(kind: str, row: Row) -> str:
    """Return the seconds of training up to the first epoch that reaches the target."""
    if not (found := row.get(kind)):
        return ""
    for epoch, accuracy in enumerate(found["validation"], 1):
        if accuracy >= float(row["key"]):
            return f"{sum(found['seconds'][:epoch]):,.3g} ({epoch} epochs)"
    return f"not in {sum(found['seconds']):,.3g}: {max(found['validation']):.4f}"


def _predictions(figures: Figures) -> list[Row]:
    rows = []
    for key, row in figures.items():
        name, _, batch = key.partition(" ")
        if batch != "accuracy":
            title = f"{WORK[name].net} at {WORK[name].pixels}, {batch}"
            rows.append(row | {"key": title, "accuracy": figures.get(f"{name} accuracy", {})})
    return rows


def _accuracy(kind: str, row: Row) -> str:
    return f"{row['accuracy'][kind]:.4f}" if kind in row["accuracy"] else ""


def _images_per_second(row: Row, name: str) -> float:
    return int(re.sub(r".*, ([\d,]+) JPEGs.*", r"\1", row["key"]).replace(",", "")) / _median(row, name)


def _loading(figures: Figures) -> list[Row]:
    first, speeds, cached = (figures[key] for key in ("first_batch_seconds", "decoded_per_second", "cached"))
    before, after = cached["megabytes"]
    rows = [
        {"key": f"seconds to the first batch, {state}", "values": (first[name], first["DataLoader"]), "form": ".2f"}
        for state, name in (("empty cache", "cold"), ("full cache", "warm"))
    ]
    for count, threads in ((1, "1 thread or worker"), (2, "2 threads or workers")):
        pair = [speeds[f"{name} {count}"] for name in ("cnnkit", "DataLoader")]
        ratio = statistics.median(one / other for one, other in zip(*pair, strict=True))
        rows.append({"key": f"images/s decoded, {threads}", "values": pair, "form": ",.0f", "ratio": f"{ratio:.2f}"})
    key = "images/s in shuffled float batches from the cache"
    rows.append({"key": key, "values": [cached["images_per_second"]], "form": ",.0f"})
    rows += [
        {"key": f"MB of anonymous memory, {when} ten epochs", "values": [[value]], "form": ".1f"}
        for when, value in (("before", before), ("after", after))
    ]
    return rows


def _loaded(index: int, row: Row) -> str:
    return f"{statistics.median(row['values'][index]):{row['form']}}" if index < len(row["values"]) else ""


def _statistics(figures: Figures) -> list[Row]:
    rows: list[Row] = []
    for name, runs in figures.get("accuracy", {}).items():
        validation, test = ([run[split] for run in runs] for split in ("validation", "test"))
        rows.append(
            {
                "key": name,
                "validation": f"{statistics.mean(run['last'] for run in validation):.3f}",
                "test": f"{statistics.mean(run['test'] for run in test):.3f}",
                "loss": f"{max(run['worst_loss'] for run in validation + test):.2f}",
            }
        )
    for name, row in figures["cost"].items():
        _, _, batch, steps, _ = COSTS[name]
        moving, fresh = (f"{1000 * _median(row, kind):.1f}" for kind in ("moving", "fresh"))
        ratio = f"{_ratio(row, 'fresh', 'moving'):.3f}"
        cost = f"{float(row['titles']['fresh'].rpartition(': ')[2]):.1%}"
        key = f"{name}, {steps} batches of {batch}"
        rows.append({"key": key, "moving": moving, "fresh": fresh, "ratio": ratio, "cost": cost})
    return rows


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.4f} ({_range(interval)})"


def _range(ends: list[float]) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}"


def _text(key: str, row: Row) -> str:
    return str(row.get(key, ""))


def _trained(row: Row, name: str) -> float:
    return WORK[row["key"]].images / _median(row, name)


def _speed(name: str, row: Row) -> str:
    return f"{statistics.median(speed for speed, _ in row[name]):,.0f}"


def _share_of_peak(row: Row) -> str:
    speed = row["operations"] / _median(row, "cnnkit")
    return f"{speed / 1e12:.1f} TFLOP/s, {speed / row['peak']:.0%} of {row['peak'] / 1e12:,.0f}"


def _speed_up(row: Row) -> str:
    return f"{statistics.median(two / one for (one, _), (two, _) in zip(*map(row.get, PROCESSES), strict=True)):.2f}"


PROCESSES = ("one process", "two processes")
KINDS = {
    "accuracy": Kind(
        "Test accuracy",
        "accuracy.py --mnist-dir DIR",
        {
            "command": _command,
            "mean": partial(_of_seeds, statistics.mean),
            "lowest": partial(_of_seeds, min),
            "highest": partial(_of_seeds, max),
            "seeds": lambda row: str(len(row["accuracy"])),
        },
        _by_command,
        note="Accuracy on the whole test set: 10,000 images of Fashion-MNIST, with 6,000 of the 60,000 training images "
        "held out for validation; for MNIST 1,000 images, after training on 4,000. The chapter reports 0.7527 for the "
        "run on raw pixels. These figures are older than `--norm-statistics` and were measured with moving averages.",
    ),
    "chapter": Kind(
        "The chapter's networks on Fashion-MNIST",
        "chapter.py --runs DIR",
        {
            "command": _command,
            "test accuracy": lambda row: f"{row['accuracy']:.4f}",
            "reported": lambda row: f"{REPORTED[row['key']]:.3f}",
            "validation": lambda row: f"{row['validation']:.4f}",
            "epochs": lambda row: row["command"].split("--epochs ")[1].split()[0],
            "seconds of training": lambda row: f"{row['seconds']:,}",
            "precision": lambda row: row["plan"]["precision"],
        },
        _by_command,
        note='"Reported" is what the chapter or its sources report after five epochs.',
    ),
    "calibration": Kind(
        "Calibration of the chapter's networks on Fashion-MNIST",
        "calibration.py --runs DIR",
        {
            "command": _command,
            "accuracy": lambda row: _with_interval(row["after"]["accuracy"], row["after"]["interval"]),
            "temperature": lambda row: f"{row['after']['temperature']:.3f}",
            "log loss": lambda row: f"{row['before']['loss']:.4f}",
            "with temperature": lambda row: f"{row['after']['loss']:.4f}",
            "ECE": lambda row: f"{row['before']['ece']:.4f}",
            "ECE with temperature": lambda row: f"{row['after']['ece']:.4f}",
            "ECE if perfectly calibrated": lambda row: _range(row["after"]["band"]),
        },
        _by_command,
        note="One seed each. The temperature is fitted on the 6,000 validation images; all other figures are of the "
        "10,000 test images, with 95 % intervals.",
    ),
    "judgement": Kind(
        "A report of a run",
        "judgement.py --runs RUN [RUN...]",
        {
            "run": _key,
            "test images": lambda row: f"{row['images']:,}",
            "evaluate, s": lambda row: f"{row['predicting']:.1f}",
            "report, s": lambda row: f"{statistics.median(row['seconds']):.1f}",
            "report, MB": lambda row: f"{row['bytes'] / 1e6:.2f}",
        },
        _keyed,
        note="`report` reads the predictions that `evaluate` has kept. Each is a new process, with the imports.",
    ),
    "time_to_accuracy": Kind(
        "Training time to a validation accuracy on Fashion-MNIST, seconds",
        "time_to_accuracy.py",
        {
            "validation accuracy": lambda row: f"{float(row['key']):.0%}",
            "command": _command,
            "cnnkit": partial(_reached, "cnnkit"),
            "plain PyTorch loop": partial(_reached, "plain"),
            "cnnkit's test accuracy, best epoch": lambda row: f"{row['cnnkit']['test']:.4f}",
        },
        lambda figures: sorted(_keyed(figures), key=_key),
        note="Both use the same network, optimiser and schedule.",
    ),
    "train_throughput": Kind(
        "Training, images per second",
        "train_throughput.py --keras-python PYTHON",
        {
            "network": lambda row: WORK[row["key"]].title,
            "{}": Each(_trained, ",.1f"),
            "cnnkit / {}": Each(partial(_ratio, other="cnnkit"), ".2f", ("cnnkit",), averaged=True),
            "cnnkit's plan": lambda row: row["titles"]["cnnkit"].split(": ", 1)[1],
        },
        lambda figures: [{"key": key} | figures[key] for key in WORK if key in figures],
        {"geometric mean": lambda row: True, "the same without LeNet": lambda row: not row["key"].startswith("lenet")},
    ),
    "lanes": Kind(
        "Seconds per epoch of LeNet: lanes and peers",
        "lanes.py --keras-python PYTHON --jax-python PYTHON",
        {
            **{name: lambda row, i=i: row["key"].split(", ")[i] for i, name in enumerate(("net", "batch", "cores"))},
            "{}": Each(lambda row, name: _median(row, name) * LANES_EPOCH / LANES_PART, ".3g"),
            "{} / lanes": Each(partial(_ratio, other="cnnkit-lanes"), ".1f", ("cnnkit-lanes",)),
            "lanes, share of a large matrix multiplication's speed": lambda row: f"{row['to_matrix_product']:.0%}",
        },
        _keyed,
    ),
    "inference": Kind(
        "Prediction, milliseconds per batch",
        "inference.py --keras-python PYTHON",
        {
            "network, batch": _key,
            "{}": Each(lambda row, name: 1000 * _median(row, name), ",.3g"),
            "cnnkit's engine": lambda row: row["titles"]["cnnkit"].split(": ")[1],
            "{}, ratio": Each(
                lambda row, name: statistics.median(
                    a / b for a, b in zip(row["seconds"]["eager"], row["seconds"][name], strict=True)
                ),
                ".2f",
                ("eager",),
                averaged=True,
            ),
            **{f"accuracy, {kind}": partial(_accuracy, kind) for kind in ("as it is", "fp32", "bf16", "int8")},
        },
        _predictions,
        {"geometric mean": lambda row: True},
        note="Ratios are speed-ups over eager PyTorch; `cnnkit` is `cnnkit.deploy.optimise_for_inference`.",
    ),
    "predict_folder": Kind(
        "Prediction on a folder of photographs, images per second",
        "predict_folder.py --photos DIR",
        {
            "network and images": _key,
            "{}": Each(_images_per_second, ",.0f"),
            "cnnkit / {}": Each(partial(_ratio, other="cnnkit"), ".2f", ("cnnkit",)),
        },
        _seconds,
        note="`loop` opens one image after another; `DataLoader` has two workers.",
    ),
    "data_loading": Kind(
        "Loading a folder of 28 x 28 PNGs",
        "data_loading.py",
        {
            "": _key,
            "cnnkit": partial(_loaded, 0),
            "DataLoader + Pillow": partial(_loaded, 1),
            "ratio": partial(_text, "ratio"),
        },
        _loading,
        note="With an empty cache, cnnkit decodes all images before the first batch.",
    ),
    "decode_memory": Kind(
        "Memory for decoding one image of 50 million pixels, MB",
        "decode_memory.py",
        {
            "file": _key,
            "decoded to 224 x 224": lambda row: f"{row['224 x 224']:.0f}",
            "decoded at full size": lambda row: f"{row['full size']:.0f}",
        },
        _keyed,
    ),
    "augment": Kind(
        "Augmentation, images per second on one thread",
        "augment.py",
        {
            "images": partial(_text, "images"),
            "augmentation": partial(_text, "name"),
            "library": partial(_text, "by"),
            "images/s": lambda row: f"{AUGMENT_BATCH / _median(row, row['by']):,.0f}",
            "time / cnnkit's time": lambda row: f"{_ratio(row, row['by'], 'cnnkit'):.1f}",
        },
        _augmentations,
    ),
    "finetune": Kind(
        "Fine-tuning on a few images of new classes",
        "finetune.py --photos DIR",
        {
            "run": _key,
            "mean accuracy": lambda row: f"{statistics.mean(row['found']):.3f}",
            "standard deviation": lambda row: f"{statistics.stdev(row['found']):.3f}",
            "per seed": lambda row: " ".join(f"{value:.3f}" for value in row["found"]),
        },
        lambda figures: [{"key": key, "found": found} for key, found in figures["accuracy"].items()],
    ),
    "norm_statistics": Kind(
        "Batch normalisation: fresh statistics or moving averages",
        "norm_statistics.py --photos DIR",
        {
            "run": _key,
            "validation": partial(_text, "validation"),
            "test": partial(_text, "test"),
            "largest validation loss": partial(_text, "loss"),
            "moving, ms": partial(_text, "moving"),
            "fresh, ms": partial(_text, "fresh"),
            "ratio": partial(_text, "ratio"),
            "cost": partial(_text, "cost"),
        },
        _statistics,
    ),
    "processes": Kind(
        "One and two processes, images per second",
        "processes.py",
        {
            "network": _key,
            **{name: partial(_speed, name) for name in PROCESSES},
            "ratio": _speed_up,
            "loss, one process": lambda row: f"{row['one process'][0][1]:.4f}",
            "loss, two processes": lambda row: f"{row['two processes'][0][1]:.4f}",
        },
        _keyed,
        note="On one machine without GPUs, a second process is no faster.",
    ),
    "scaling": Kind(
        "A training epoch of ResNet-18, varying one dimension at a time",
        "scaling.py",
        {
            "dimension": partial(_text, "axis"),
            "value": lambda row: str(row[row["axis"]]),
            "seconds": lambda row: f"{row['seconds']:.2f}",
            "images/s": lambda row: f"{row['images'] / row['seconds']:,.0f}",
            "MB": lambda row: f"{row['megabytes']:,}",
        },
        lambda figures: figures["points"],
        note="The processes all-reduce 11 million gradient values of ResNet-18 at each step.",
    ),
    "gpu": Kind(
        "Training on a GPU, images per second",
        "gpu.py",
        {
            "network": lambda row: "{net} at {pixels}, batch {batch}".format(**row["work"]),
            "{}": Each(lambda row, name: row["work"]["batch"] * row["work"]["steps"] / _median(row, name), ",.0f"),
            "cnnkit / {}": Each(partial(_ratio, other="cnnkit"), ".2f", ("cnnkit",)),
            "cnnkit's plan (and the time to find it)": lambda row: f"{row['plan']} ({row['choosing']:.1f} s)",
            "share of a large matrix multiplication's speed": _share_of_peak,
        },
        _keyed,
    ),
}  # fmt: skip
