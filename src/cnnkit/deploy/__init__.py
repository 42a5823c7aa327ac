"""Carry a trained net around: bundles that explain themselves, and predictions from them."""

from cnnkit.deploy.bundle import Bundle, find_bundle, load_bundle, save_bundle
from cnnkit.deploy.predict import Prediction, predict
from cnnkit.deploy.pretrained import published_preprocess

__all__ = ["Bundle", "Prediction", "find_bundle", "load_bundle", "predict", "published_preprocess", "save_bundle"]
