"""What a report costs: seconds and megabytes of `cnnkit report` beyond the predictions that it reads.

    python benchmarks/judgement.py --runs RUN [RUN...]

Each RUN is a trained run folder, such as one of Fashion-MNIST and one of photographs. The predictions are made first;
then each report is written three times by a new process, imports included. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import time
from pathlib import Path

from _lib.command import cnnkit
from _lib.report import RESULTS, write

ROUNDS = 3


def main() -> None:
    """Write the reports of the runs and time them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    figures = {}
    for run in options.runs:
        started = time.perf_counter()
        evaluated = json.loads(cnnkit("evaluate", str(run), "--json"))
        predicting = time.perf_counter() - started
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            cnnkit("report", str(run))
            seconds.append(time.perf_counter() - started)
        figures[run.name] = {
            "images": evaluated["images"],
            "predicting": predicting,
            "seconds": seconds,
            "bytes": (run / "report.html").stat().st_size,
        }
        print(run.name, figures[run.name], flush=True)
    write(options.output, "judgement", "cnnkit evaluate, then cnnkit report three times, each a new process", figures)


if __name__ == "__main__":
    main()
