"""Recipes: named settings, each with only those that differ from the defaults."""

from typing import Any

from cnnkit.core.errors import pick

__all__ = ["RECIPES", "recipe"]

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # chapter 5.5.2: Keras' initial weights, batch size and moving averages; plain SGD at 0.9
    "chapter": {
        "epochs": 5,
        "batch_size": 32,
        "optimizer": "sgd",
        "lr": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "init": "glorot",
        "norm_statistics": "moving",
        "standardize": False,
    },
    # published weights, with a small learning rate in the body and a larger one in the new head
    "finetune": {
        "pretrained": True,
        "lr": 0.002,
        "weight_decay": 0.05,
        "stage_lr": {"*": 0.1, "head": 1.0},
        "augment": ["rrc:0.35", "flip"],
        "label_smoothing": 0.1,
        "ema": 0.99,
        "patience": 5,
    },
    # the highest accuracy from random weights, for a long training
    "best": {
        "epochs": 30,
        "batch_size": 128,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "augment": ["flip", "crop", "erase:0.25"],
        "label_smoothing": 0.1,
        "ema": 0.998,
    },
}


def recipe(name: str) -> dict[str, Any]:
    """Return the settings of the recipe `name`; raises UsageError, with the closest name, for an unknown one."""
    return pick(RECIPES, name, "recipe")
