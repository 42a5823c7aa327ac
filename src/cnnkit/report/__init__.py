"""Pictures and numbers of runs: tables to compare them, curves on paper and in the terminal."""

from cnnkit.report.curves import Panel, Series, print_plot, save_figure
from cnnkit.report.runs import RunSummary, list_runs, read_metrics, sort_runs, summarise

__all__ = [
    "Panel",
    "RunSummary",
    "Series",
    "list_runs",
    "print_plot",
    "read_metrics",
    "save_figure",
    "sort_runs",
    "summarise",
]
