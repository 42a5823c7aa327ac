"""Contestants that are processes of their own and work in turn, so that what slows the machine slows them all."""

import json
import subprocess
import sys
from collections.abc import Callable

Turn = Callable[[str, float], None]  # takes who worked and its seconds; returns when it is its turn again


class Contestant:
    """A process that runs `answer`."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self) -> tuple[str, float]:
        """Let it work once; return who it is, and its seconds."""
        assert self.process.stdin
        assert self.process.stdout
        print("go", file=self.process.stdin, flush=True)
        while line := self.process.stdout.readline():
            if line.startswith("["):  # libraries print too
                title, seconds = json.loads(line)
                return title, seconds
        raise SystemExit(f"{' '.join(self.process.args)} ended with {self.process.wait()}")

    def leave(self) -> None:
        """Let it end."""
        self.process.communicate()


def answer(work: Callable[[Turn], None]) -> None:
    """Call `work`, whose `turn` reports to the main process and waits for its next word; end when there is none."""

    def turn(title: str, seconds: float) -> None:
        print("\n" + json.dumps([title, seconds]), flush=True)
        wait()

    def wait() -> None:
        if not sys.stdin.readline():
            sys.exit()

    wait()
    work(turn)
