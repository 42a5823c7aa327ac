"""Trainings in one or several child processes: started, awaited and killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def torchrun(*arguments: object, processes: int = 2, restarts: int = 0) -> list[str]:
    """Return the command that starts the command line in several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*command, f"--max-restarts={restarts}", "--monitor-interval=0.1", "-m", "cnnkit", *map(str, arguments)]


def run_torchrun(*arguments: object, **options: int) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        torchrun(*arguments, **options), env=environment, capture_output=True, text=True, check=False, timeout=100
    )


def start_training(processes: int, *arguments: str) -> subprocess.Popen[str]:
    one = [sys.executable, "-m", "cnnkit", "train", *arguments]
    return subprocess.Popen(
        one if processes == 1 else torchrun("train", *arguments, processes=processes),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err


def kill(parent: int) -> None:
    """Kill a process and those that it has started, and wait until they are gone."""
    children = [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    for process in (parent, *children):
        os.kill(process, signal.SIGKILL)
    for child in children:
        while (status := Path(f"/proc/{child}/status")).exists() and "State:\tZ" not in status.read_text():
            time.sleep(0.01)


def wait_for_lines(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not path.exists() or len(path.read_text().splitlines()) < lines):
        time.sleep(0.02)
    assert path.exists()
