"""Checks of a folder of images: each file, the files together, and a quarantine for harmful ones."""
