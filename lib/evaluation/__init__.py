"""Weights measured on annotated items; the `evaluate` command."""
