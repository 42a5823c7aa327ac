"""The command line: `cnnkit`, or `python -m cnnkit`."""

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C exits at once with 130, or after saving if a run handles the signal."""
    signal.signal(signal.SIGINT, _interrupted)  # first, as KeyboardInterrupt breaks imports
    from cnnkit.cli.app import main

    main()


def _interrupted(number: int, frame: object) -> NoReturn:
    if os.isatty(1):
        os.write(1, b"\x1b[?25h")  # a progress bar may have hidden the cursor
    os.write(2, b"cnnkit: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
