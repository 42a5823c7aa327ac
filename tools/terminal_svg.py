"""Draw what a command prints on a terminal as an SVG file.

python tools/terminal_svg.py docs/anatomy.svg cnnkit anatomy lenet
"""

import io
import os
import pty
import re
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 96


def run(command: list[str]) -> str:
    """Run the command on a pseudo-terminal; return what is on the screen at the end, with its colours."""
    shown = bytearray()

    def read(terminal: int) -> bytes:
        part = os.read(terminal, 65536)
        shown.extend(part)
        return part

    os.environ |= {"COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color"}
    if pty.spawn(command, read):
        sys.exit(f"{shlex.join(command)} failed")
    text = shown.decode().replace("\r\n", "\n")
    # a progress bar moves up and clears lines before it writes them again, as a terminal shows it
    screen: list[str] = [""]
    row = 0
    for piece in re.split(r"(\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh]|\r|\n)", text):
        if up := re.fullmatch(r"\x1b\[(\d*)A", piece):
            row = max(0, row - int(up[1] or 1))
        elif piece == "\x1b[2K":
            screen[row] = ""
        elif piece == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif piece and piece != "\r" and "?25" not in piece:
            screen[row] = piece if not screen[row] else screen[row] + piece
    return "\n".join(screen).rstrip()


def main() -> None:
    """Run the command and write the drawing."""
    target, *command = sys.argv[1:]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(f"$ {shlex.join([Path(command[0]).name, *command[1:]])}\n{run(command)}"))
    svg = console.export_svg(title="cnnkit")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # the reader's own monospace, nothing from the network
    Path(target).write_text(svg)


if __name__ == "__main__":
    main()
