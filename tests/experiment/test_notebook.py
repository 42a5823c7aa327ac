"""A real notebook in a real kernel: one updated line of progress, and runs with a rich display."""

import asyncio
import warnings

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = [
    "import cnnkit\nrun = cnnkit.fit('lenet', epochs=6, device='cpu', engine='torch', plan='off', augment=['crop'])",
    "run",
    "run.history",
    "run.history.plot()",
    "run.evaluate()",
    "import os, signal\n"
    "class Stop:\n"
    "    def on_epoch_end(self, record):\n"
    "        os.kill(os.getpid(), signal.SIGINT)  # what the stop button sends\n"
    "try:\n"
    "    cnnkit.fit('lenet', epochs=3, device='cpu', callbacks=[Stop()])\n"
    "except cnnkit.experiment.RunInterrupted as stop:\n"
    "    rest = cnnkit.fit(resume=stop.folder.path)\n"
    "len(rest.history)",
]


@pytest.mark.filterwarnings("default")  # of the notebook's own libraries
def test_notebook_runs_from_training_to_figures() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with warnings.catch_warnings(action="ignore"):
        asyncio.run(NotebookClient(notebook, timeout=240, kernel_name="python3").async_execute())
    trained, run, history, plot, report, resumed = (cell.outputs for cell in notebook.cells)
    [line] = trained  # however many epochs, one line
    assert line.output_type == "display_data"
    assert line.data["text/plain"] == "next: run.evaluate()"
    assert "<svg" in run[0].data["text/html"]
    assert "6 of 6 epochs" in run[0].data["text/plain"]
    assert history[0].data["text/html"].count("<tr>") == 7
    assert "<svg" in plot[0].data["text/html"]
    assert "true / predicted" in report[0].data["text/html"]
    assert resumed[-1].data["text/plain"] == "3"
    assert not any(output.output_type == "error" for output in resumed)
