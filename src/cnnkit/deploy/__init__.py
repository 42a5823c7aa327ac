"""Prediction with trained networks: classifiers, predictions, bundles, and fast runners."""

from cnnkit.deploy.bundle import (
    Bundle,
    amend_bundle,
    find_bundle,
    read_bundle,
    read_weights,
    require_intact,
    save_bundle,
)
from cnnkit.deploy.classifier import Classifier, load
from cnnkit.deploy.fold import fold
from cnnkit.deploy.predictions import Predictions
from cnnkit.deploy.pretrained import published_preprocess
from cnnkit.deploy.runner import Runner, optimise_for_inference, to_onnx

__all__ = [
    "Bundle",
    "Classifier",
    "Predictions",
    "Runner",
    "amend_bundle",
    "find_bundle",
    "fold",
    "load",
    "optimise_for_inference",
    "published_preprocess",
    "read_bundle",
    "read_weights",
    "require_intact",
    "save_bundle",
    "to_onnx",
]
