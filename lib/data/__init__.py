"""Patches for training: items, splits, sampling, augmentation."""
