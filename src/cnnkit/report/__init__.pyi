from .curves import RunCurves, run_curves
from .report import RunReport, run_report
from .runs import RunSummary, list_runs, sort_runs, summarise

__all__ = ["RunCurves", "RunReport", "RunSummary", "list_runs", "run_curves", "run_report", "sort_runs", "summarise"]
