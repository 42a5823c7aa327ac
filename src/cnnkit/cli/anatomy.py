"""`cnnkit anatomy`: shapes, parameters, MACs, receptive fields and memory of a network."""

import csv
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cnnkit.cli.console import page, print_json, table
from cnnkit.cli.options import AnyNet, InputSize, NumClasses
from cnnkit.core.errors import UsageError
from cnnkit.core.shape import by
from cnnkit.core.text import markdown

if TYPE_CHECKING:
    from cnnkit.anatomy import Anatomy, Part
    from cnnkit.nets import Entry

__all__ = ["anatomy", "find_anatomy"]

MAX_SIZE = 10**6  # channels, pixels, classes


def anatomy(
    net: AnyNet,
    *,
    input_size: InputSize = None,
    num_classes: NumClasses = None,
    depth: int | None = None,
    json: bool = False,
    csv: bool = False,
    markdown: bool = False,
) -> None:
    """Show a network's shapes, parameters, MACs and receptive fields, and its memory, by stage and layer.

    - `field`: receptive field of an output in input pixels; `?` if unknown, `all` for the whole image
    - `jump`: distance of the receptive fields of neighbouring outputs
    - `start`: first pixel of the first receptive field; negative in the padding
    - `train`: memory that is saved for the backward pass, for one image
    - `infer`: peak memory of the feature maps without a backward pass, for one image

    PyTorch may hold more memory.

    Parameters
    ----------
    depth
        Levels to show: 0 for totals only, 1 for stages, 2 for their parts, and so on; by default all.
    json
        Print JSON with unformatted numbers.
    csv
        Print comma-separated values with unformatted numbers.
    markdown
        Print a Markdown table.
    """
    if json + csv + markdown > 1:
        raise UsageError("--json, --csv and --markdown cannot be combined; choose one")
    if depth is not None and depth < 0:
        raise UsageError(f"--depth must be 0 or more, not {depth}")
    name, whole, facts = find_anatomy(net, input_size, num_classes)
    if json:
        _print_json(name, whole, facts, depth)
    elif csv:
        _print_csv(whole, depth)
    else:
        _print_table(name, whole, facts, depth, markdown)


def find_anatomy(net: str, input_size: str | None, num_classes: int | None) -> "tuple[str, Anatomy, Entry]":
    """Return the name (in the zoo, or of the folder), anatomy and zoo entry of `net`, for an input like "1x28x28"."""
    import torch

    from cnnkit.anatomy import trace
    from cnnkit.cli.source import open_net
    from cnnkit.nets import create, entry
    from cnnkit.nets.zoo import full_name

    try:
        name = full_name(net)
    except UsageError:
        trained = open_net(net)
        if input_size or num_classes is not None:
            raise UsageError(
                f"{net} is trained: its input and classes are fixed; remove --input and --num-classes"
            ) from None
        whole = trace(trained.net, (trained.in_channels, *trained.preprocess.image_size))
        return net, whole, entry(trained.name)
    facts = entry(name)
    channels, height, width = _size(input_size) if input_size else facts.input
    if num_classes and num_classes > MAX_SIZE:
        raise UsageError(f"--num-classes must be at most {MAX_SIZE:,}, not {num_classes}")
    with torch.device("meta"):  # shapes only, no memory
        built = create(name, in_channels=channels, num_classes=num_classes, image_size=(height, width))
    return name, trace(built, (channels, height, width)), facts


def _size(text: str) -> tuple[int, int, int]:
    numbers: list[Any] = text.lower().split("x")
    if len(numbers) != 3 or not all(n.isdecimal() and len(n) <= 9 and 0 < int(n) <= MAX_SIZE for n in numbers):
        raise UsageError(f"--input takes channels x height x width, such as 1x28x28, up to {MAX_SIZE:,}, not {text!r}")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def _figures(part: "Part", whole: "Anatomy") -> dict[str, Any]:
    return {
        "name": part.name,
        "kind": part.kind,
        "output": part.output,
        "params": part.params,
        "params_share": _share(part.params, whole.params),
        "statistics": part.statistics,
        "macs": part.macs,
        "macs_share": _share(part.macs, whole.macs),
        "receptive": part.receptive and asdict(part.receptive),
        "output_bytes": part.output_bytes,
        "training_bytes": part.training_bytes,
        "inference_bytes": part.inference_bytes,
    }


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


def _print_json(net: str, whole: "Anatomy", facts: "Entry", depth: int | None) -> None:
    def inside(part: "Part", level: int) -> list[dict[str, Any]]:
        if level == depth:
            return []
        return [_figures(inner, whole) | {"parts": inside(inner, level + 1)} for inner in part.parts]

    totals = ("params", "statistics", "macs", "training_bytes", "inference_bytes")
    print_json(
        {
            "net": net,
            "input": whole.input,
            **{name: getattr(whole, name) for name in totals},
            "published": facts.published and asdict(facts.published),
            "stages": inside(whole, 0),
        }
    )


def _print_csv(whole: "Anatomy", depth: int | None) -> None:
    rows = []
    for level, part in whole.rows(depth):
        figures = {"level": level, **_figures(part, whole), "output": "x".join(map(str, part.output))}
        unknown = dict.fromkeys(("size", "step", "start"), ("", ""))
        for name, (vertical, horizontal) in (figures.pop("receptive") or unknown).items():
            figures |= {f"field_{name}_vertical": vertical, f"field_{name}_horizontal": horizontal}
        rows.append(figures)
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(net: str, whole: "Anatomy", facts: "Entry", depth: int | None, markdown: bool) -> None:
    unit, size = ("MiB", 2**20) if whole.training_bytes >= 2**20 else ("KiB", 2**10)
    columns = ["", "output", "params", "%", "MACs", "%", "field", "jump", "start", "train", "infer"]
    (_, total), *inner = ((level, [_name(part), *_cells(part, whole, size)]) for level, part in whole.rows(depth))
    totals = [["total", "", *total[2:6], "", "", "", *total[-2:]]]
    weights = f"{4 * whole.params / size:,.2f} {unit}"
    memory = "train: saved for the backward pass, infer: peak of the feature maps"
    notes = [
        "receptive field in input pixels: its size, jump between neighbours, start of the first",
        f"memory in {unit} for one image, {memory}; weights: {weights}",
    ]
    if published := facts.published:
        params, macs = (f"{count:,}" if count else "" for count in (published.params, published.macs))
        totals.append(["published", "", params, "", macs, *[""] * 6])
        notes.append(f"published: {published.source}")
    if whole.statistics:
        notes.append(f"plus {whole.statistics:,} moving statistics (Keras' total: {whole.params + whole.statistics:,})")
    show = _show_markdown if markdown else _show
    show([f"{net}, input {by(*whole.input)}", *notes], columns, inner, totals)


def _name(part: "Part") -> str:
    kind = "" if part.kind == "Sequential" else part.kind
    return f"{part.name.rpartition('.')[2]} {kind}".strip()


def _cells(part: "Part", whole: "Anatomy", size: int) -> list[str]:
    field = part.receptive
    steps = ["-", "-"]
    if field and field.step != (0, 0):
        steps = [f"{down}" if down == across else f"{down}, {across}" for down, across in (field.step, field.start)]
    return [
        by(*part.output),
        f"{part.params:,}",
        f"{_share(part.params, whole.params):.1%}".rstrip("%"),
        f"{part.macs:,}",
        f"{_share(part.macs, whole.macs):.1%}".rstrip("%"),
        "?" if field is None else "all" if field.step == (0, 0) else by(*field.size),
        *steps,
        f"{part.training_bytes / size:,.2f}",
        f"{part.inference_bytes / size:,.2f}",
    ]


def _show(lines: list[str], columns: list[str], inner: list[tuple[int, list[str]]], totals: list[list[str]]) -> None:
    listing = table(columns, text=1)
    listing.padding, listing.collapse_padding, listing.columns[0].no_wrap = (0, 1), True, True
    deeper = False
    for level, (name, *cells) in inner:
        if level == 1 and deeper:
            listing.add_section()
        deeper = level > 1
        listing.add_row("  " * (level - 1) + name, *cells, style="dim" if deeper else "bold")
    listing.add_section()
    for row in totals:
        listing.add_row(*row)
    whole = page.measure(listing, options=page.options.update(max_width=1000)).maximum
    page.width = max(page.width, whole)  # a narrow terminal wraps rows; rich would cut them
    page.print(lines[0], listing, *lines[1:], sep="\n")


def _show_markdown(
    lines: list[str], columns: list[str], inner: list[tuple[int, list[str]]], totals: list[list[str]]
) -> None:
    rows = [[f"{'&nbsp;&nbsp;' * (level - 1)}{name}", *cells] for level, (name, *cells) in inner]
    rules = [":--", *["--:"] * (len(columns) - 1)]
    print(markdown(lines[0]), "", sep="\n")
    for row in (columns, rules, *rows, *totals):
        print(f"| {' | '.join(row)} |")
    print("", *lines[1:], sep="\n")
