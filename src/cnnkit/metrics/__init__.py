"""Judging predictions: scores with their uncertainty, calibration, temperature. It depends on numpy and `core` only."""
