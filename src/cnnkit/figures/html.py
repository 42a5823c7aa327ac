"""HTML tables for notebooks."""

from collections.abc import Iterable, Sequence

from cnnkit.core.text import html

__all__ = ["html_table"]


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], text: int = 1) -> str:
    """Return an HTML table; the first `text` columns are left-aligned, the others right-aligned."""

    def cells(tag: str, values: Sequence[object]) -> str:
        aligned = (f'<{tag} style="text-align:{"left" if i < text else "right"}">' for i in range(len(values)))
        return "".join(f"{start}{html(value)}</{tag}>" for start, value in zip(aligned, values, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', columns)}</tr></thead><tbody>{body}</tbody></table>"
