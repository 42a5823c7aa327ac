"""A record of the images that are decoded for the cache."""

import pytest

from cnnkit.data.folder import store as store_module
from helpers.folders import DECODERS, counting


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents that are decoded for the cache."""
    seen: list[bytes] = []
    for name in DECODERS:
        monkeypatch.setattr(store_module, name, counting(getattr(store_module, name), seen))
    return seen
