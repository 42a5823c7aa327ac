"""Optional packages, imported where they are used; an error names the extra to install."""

import importlib
from types import ModuleType

from cnnkit.core.errors import CnnkitError

__all__ = ["require"]


def require(module: str, extra: str | None) -> ModuleType:
    """Return the module; raises CnnkitError, saying what to install, if its package is missing.

    `extra` is the extra that installs the package, None if there is no such extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        what = f'"cnnkit[{extra}]"' if extra else package
        raise CnnkitError(f"this needs the package {package}: pip install {what}") from error
