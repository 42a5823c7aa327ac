"""Hyperparameter search, with several workers on one study (needs the extra `search`)."""
