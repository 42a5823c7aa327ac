"""Augmentation of training images, as pure functions of a batch."""
