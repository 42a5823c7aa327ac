"""Records in the cache with a checksum, and values to put into them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnkit.core.kept import to_record

JUNK = (None, "x", "", -7, -1, 7, 10**9, 10**30, 0.5, True, [], {}, [None], {"a": 1}, [[[[]]]])


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record, and give it the checksum that belongs to it."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(to_record(content))
