"""Carry a trained net around: bundles that explain themselves, and predictions from them."""

from cnnkit.deploy.bundle import Bundle, find_bundle, load_bundle, save_bundle
from cnnkit.deploy.predict import Prediction, predict

__all__ = ["Bundle", "Prediction", "find_bundle", "load_bundle", "predict", "save_bundle"]
