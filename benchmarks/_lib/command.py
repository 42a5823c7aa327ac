"""The command line of cnnkit, run in a process of its own."""

import subprocess
import sys


def cnnkit(*arguments: str) -> str:
    """Run the command line; return what it prints."""
    command = [sys.executable, "-m", "cnnkit", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
