"""Carry a trained net around: bundles that explain themselves, predictions from them, and what runs them fast."""

from cnnkit.deploy.bundle import Bundle, find_bundle, load_bundle, save_bundle
from cnnkit.deploy.fold import fold
from cnnkit.deploy.predict import Prediction, predict
from cnnkit.deploy.pretrained import published_preprocess
from cnnkit.deploy.runner import Runner, prepare, to_onnx

__all__ = [
    "Bundle",
    "Prediction",
    "Runner",
    "find_bundle",
    "fold",
    "load_bundle",
    "predict",
    "prepare",
    "published_preprocess",
    "save_bundle",
    "to_onnx",
]
