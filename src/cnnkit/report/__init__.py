"""Reports on runs: summaries, tables and curves."""

from cnnkit.report.curves import RunCurves, run_curves
from cnnkit.report.runs import RunSummary, list_runs, sort_runs, summarise

__all__ = ["RunCurves", "RunSummary", "list_runs", "run_curves", "sort_runs", "summarise"]
