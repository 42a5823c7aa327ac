"""Optional packages: asked for where they are used, and named with their extra when they are missing."""

import importlib
from types import ModuleType

from cnnkit.core.errors import CnnkitError

__all__ = ["require"]


def require(module: str, extra: str | None) -> ModuleType:
    """Return the module; raises CnnkitError, saying what to install, if its package is missing.

    It is that of an extra, or None for a package that people have of their own accord.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        what = f'"cnnkit[{extra}]"' if extra else package
        raise CnnkitError(f"this needs the package {package}: pip install {what}") from error
