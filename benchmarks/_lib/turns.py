"""Contestants in separate processes that work in turn, so that other load slows all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

Turn = Callable[[str, float], None]  # takes who worked and its seconds; returns when it is its turn again


class Contestant:
    """A process that runs `answer`."""

    def __init__(self, command: list[str]):
        # TensorFlow leaves oneDNN out on processors with AVX2 alone, and is ten times slower without it
        best = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=best)

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
        """Let it exit."""
        self.process.communicate()


def in_turn(contestants: dict[str, Contestant], rounds: int, what: str) -> dict[str, Any]:
    """Let all work in turn, forth and back, after a round that does not count; return their titles and seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    titles = {}
    order = list(contestants.items())
    for round_ in range(rounds + 1):
        for name, contestant in reversed(order) if round_ % 2 else order:  # each is slowed by the one before it
            titles[name], elapsed = contestant.turn()
            if round_:
                seconds[name].append(elapsed)
            print(f"{what}: round {round_}, {name}: {elapsed:.4g} s", flush=True)
    for contestant in contestants.values():
        contestant.leave()
    return {"titles": titles, "seconds": seconds}


def answer(work: Callable[[Turn], None]) -> None:
    """Call `work`, whose `turn` reports to the main process and waits for its next turn; exit when there is none."""

    def turn(title: str, seconds: float) -> None:
        print("\n" + json.dumps([title, seconds]), flush=True)
        wait()

    def wait() -> None:
        if not sys.stdin.readline():
            sys.exit()

    wait()
    work(turn)
