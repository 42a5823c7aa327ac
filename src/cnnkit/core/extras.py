"""Optional packages: asked for where they are used, and named with their extra when they are missing."""

import importlib
from types import ModuleType

from cnnkit.core.errors import CnnkitError

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Return the module; raises CnnkitError, saying what to install, if its package is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise CnnkitError(
            f'this needs the package {module.partition(".")[0]}: pip install "cnnkit[{extra}]"'
        ) from error
