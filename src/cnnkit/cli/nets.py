"""`cnnkit nets`: the zoo."""

__all__ = ["nets"]


def nets(pattern: str = "*", *, json: bool = False) -> None:
    """List the networks of the zoo.

    Parameters
    ----------
    pattern
        Only names like this: "lenet*".
    json
        Print JSON.
    """
    from cnnkit.anatomy import trace
    from cnnkit.cli.console import console, print_json, table
    from cnnkit.core.shape import by
    from cnnkit.nets import create, entry, list_networks

    rows = []
    for name in list_networks(pattern):
        row = entry(name)
        parts = trace(create(name), row.input)
        rows.append(
            {
                "net": name,
                "input": by(*row.input),
                "smallest": row.smallest,
                "parameters": parts.params,
                "macs": parts.macs,
                "year": row.year,
                "section": row.section,
                "paper": row.paper,
                "source": row.source,
            }
        )
    if json:
        print_json(rows)
        return
    listing = table(["net", "paper", "chapter", "input", "smallest", "parameters", "MACs"], text=3)
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("parameters", "macs"))
        listing.add_row(row["net"], row["paper"], row["section"], row["input"], str(row["smallest"]), *counts)
    console.print(listing)
