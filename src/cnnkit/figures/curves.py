"""Line plots, with matplotlib or as text with plotext (the extra `report`)."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from cnnkit.core.console import PatientConsole
from cnnkit.core.errors import UsageError
from cnnkit.core.extras import require
from cnnkit.core.files import write_output
from cnnkit.core.text import printable

__all__ = ["Panel", "Plot", "Series", "text_plot"]

# Okabe and Ito's palette for colour-blind readers, without the yellow; markers distinguish the lines in print
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = "osD^vP"
TERMINAL_COLOURS = (33, 208, 36, 175, 214, 117, 244)  # the same in 256 colours, for dark and light terminals
SOLID, DASHED = "⠤", "•"
WIDTH, HEIGHT, LINE = 5.6, 3.6, 0.22  # inches of a panel and of a line of the legend
ROWS, MIN_COLUMNS = 16, 40  # of text
MAX_MARKS, MAX_TICKS = 12, 8  # on a line and on an axis
UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
STYLE = {
    "svg.hashsalt": "cnnkit",  # equal curves give equal files
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
ASCII = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")


@dataclass(frozen=True)
class Series:
    """A line with a `colour` index from 0; NaN and Inf are skipped."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """Lines on common axes; the labels include the units."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False

    def points(self, series: Series) -> tuple[list[float], list[float]]:
        """Return the coordinates that can be plotted."""
        pairs = zip(series.x, series.y, strict=True)
        drawn = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y) and (x > 0 or not self.log_x)]
        return [x for x, _ in drawn], [y for _, y in drawn]

    def has_whole_x(self) -> bool:
        """Return whether all x are integers, such as epochs."""
        return all(float(x).is_integer() for series in self.series for x in series.x)


class Plot:
    """Panels side by side with a common legend, drawn with matplotlib on demand; a notebook shows them.

    Raises CnnkitError if matplotlib is missing.
    """

    def __init__(self, panels: Sequence[Panel], title: str = ""):
        self.panels, self.title = panels, title
        require("matplotlib.figure", "report")

    def figure(self) -> Any:
        """Return a `matplotlib.figure.Figure`."""
        figures, matplotlib = require("matplotlib.figure", "report"), require("matplotlib", "report")
        labels = {series.label: series for panel in self.panels for series in panel.series}
        left_then_right = sorted(labels, key=lambda label: labels[label].dashed)
        width, height = WIDTH * len(self.panels), HEIGHT + LINE * math.ceil(len(labels) / 2)
        with matplotlib.rc_context(STYLE):
            figure = figures.Figure(figsize=(width, height), dpi=150, layout="constrained")
            for place, panel in enumerate(self.panels, start=1):
                _draw(figure.add_subplot(1, len(self.panels), place), panel)
            figure.suptitle(_literal(self.title))
            lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
            handles = [lines[label] for label in left_then_right]
            figure.legend(handles, map(_literal, left_then_right), loc="outside lower center", ncols=2, frameon=False)
        return figure

    def save(self, path: Path | str) -> None:
        """Write a .png, .svg or .pdf file; equal panels give equal files.

        Raises UsageError for another suffix, CnnkitError if the file cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind not in UNDATED:
            raise UsageError(f"{path}: curves are written as .png, .svg or .pdf; choose one of these suffixes")
        write_output(path, lambda file: self._write(file, kind))

    def _write(self, file: BinaryIO, kind: str) -> None:
        with require("matplotlib", "report").rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box replaces letters of scripts without a font
            self.figure().savefig(file, format=kind, metadata=UNDATED[kind])

    def _repr_html_(self) -> str:
        file = BytesIO()
        self._write(file, "svg")
        text = file.getvalue().decode()
        return text[text.index("<svg") :]  # without the XML declaration


def _draw(axes: Any, panel: Panel) -> None:
    axes.set(title=_literal(panel.title), xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.log_x:
        axes.set_xscale("log")
    elif panel.has_whole_x():
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for series in panel.series:
        x, y = panel.points(series)
        axes.plot(
            x,
            y,
            label=series.label,
            color=COLOURS[series.colour % len(COLOURS)],
            linestyle="--" if series.dashed else "-",
            marker=MARKS[series.colour % len(MARKS)],
            markersize=4,
            markerfacecolor="white" if series.dashed else None,
            markevery=math.ceil(len(x) / MAX_MARKS) or None,
        )


def _literal(text: str) -> str:
    """Return text without control characters, and with dollars escaped, which matplotlib would read as formulas."""
    return printable(text).replace("$", r"\$")


def text_plot(panel: Panel) -> str:
    """Return a panel as text of the terminal's width; without colours in plain ASCII, with a letter for each line.

    Raises CnnkitError if plotext is missing.
    """
    console = PatientConsole()
    plain = console.no_color or console.is_dumb_terminal or not console.encoding.startswith("utf")
    coloured = console.is_terminal and not plain
    plotext = require("plotext", "report")
    figure = plotext.figure
    plotext.terminal.limit(False, False)
    figure.clear().theme("colorless").plot_size(max(console.width, MIN_COLUMNS), ROWS)
    figure.title(printable(f"{panel.title}: {panel.y_label}")).label(panel.x_label, "x").legend(False)
    legend = []
    for series in panel.series:
        x, y = panel.points(series)
        x = [_across(panel, value) for value in x]
        letter = chr(ord("a" if series.dashed else "A") + series.colour % 26)
        colour = TERMINAL_COLOURS[series.colour % len(TERMINAL_COLOURS)]
        mark = plotext.marker(DASHED if series.dashed else "braille", pixel=colour) if coloured else letter
        figure.draw(figure.signal(x, y, marker=mark).lines())
        sample = f"\x1b[38;5;{colour}m{(DASHED if series.dashed else SOLID) * 2}\x1b[0m" if coloured else letter
        legend.append(f"{sample} {printable(series.label)}")
    _scale(figure.ruler("x"), panel)
    text = figure.build().string(not coloured)
    return "\n".join([text if coloured else text.translate(ASCII).rstrip("\n"), *legend, ""])


def _scale(ruler: Any, panel: Panel) -> None:
    """Set the limits of the x axis, and ticks at integers or powers of ten for integer or logarithmic x."""
    x = [_across(panel, value) for series in panel.series for value in panel.points(series)[0]]
    if not x:
        return
    least, most = min(x), max(x)
    if panel.log_x or panel.has_whole_x():
        whole = range(math.ceil(least), math.floor(most) + 1)
        ticks = list(whole[:: math.ceil(len(whole) / MAX_TICKS)]) if len(whole) > 1 else [least, most]
        ruler.ticks(ticks, [f"{10**tick:.2g}" if panel.log_x else f"{tick:.0f}" for tick in ticks])
    if least == most:
        ruler.lim(least - 1, most + 1)


def _across(panel: Panel, x: float) -> float:
    """Return the position of `x` on the axis; plotext's logarithmic axes do not support custom ticks."""
    return math.log10(x) if panel.log_x else x
