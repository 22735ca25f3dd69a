"""Neuropil's rooms; docs/architecture.md has the picture of the floors."""
