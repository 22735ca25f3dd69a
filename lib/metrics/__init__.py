"""Figures of quality: classes, objects, clicks, and their spread."""
