"""`cnnkit nets`: a table of the networks."""

from typing import Any

from cnnkit.cli.options import Json

__all__ = ["nets"]


def nets(pattern: str = "*", *, json: Json = False) -> None:
    """List the networks, with their papers, inputs, parameters and MACs.

    Names that end in .tv are torchvision's versions, which have published weights. The others are as chapter 5 of *Dive
    into Deep Learning* (TensorFlow 2 edition) defines them. `min px` is the smallest height and width of an image.

    Parameters
    ----------
    pattern
        List only names that match this glob, such as "lenet*".
    """
    from cnnkit.cli.console import page, print_json, table
    from cnnkit.core.shape import by
    from cnnkit.nets import WEIGHTS, entry, list_networks

    rows: list[dict[str, Any]] = []
    for name in list_networks(pattern):
        facts = entry(name)
        rows.append(
            {
                "net": name,
                "input": facts.input,
                "smallest": facts.smallest,
                "parameters": facts.params,
                "macs": facts.macs,
                "year": facts.year,
                "section": facts.section,
                "paper": facts.paper,
                "source": facts.source,
                "imagenet_top1": WEIGHTS[name].top1 if name in WEIGHTS else None,
            }
        )
    if json:
        print_json(rows)
        return
    listing = table(["net", "paper", "chapter", "input", "min px", "parameters", "MACs"], text=3)
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("parameters", "macs"))
        listing.add_row(row["net"], row["paper"], row["section"], by(*row["input"]), str(row["smallest"]), *counts)
    page.print(listing)
