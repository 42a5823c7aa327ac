"""Recipes: named rows of settings, each saying only where it leaves the defaults."""

from typing import Any

from cnnkit.core.errors import unknown

__all__ = ["RECIPES", "recipe"]

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # chapter 5.5.2: Keras' initial weights and batch size, plain SGD at 0.9
    "chapter": {
        "epochs": 5,
        "batch_size": 32,
        "optimizer": "sgd",
        "lr": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "init": "glorot",
        "standardize": False,
    },
}


def recipe(name: str) -> dict[str, Any]:
    """Return the row called `name`; raises UsageError, with the nearest name, if there is none."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
