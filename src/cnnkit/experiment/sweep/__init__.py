"""Searches for the best settings, with several workers on one study (the extra `search`)."""
