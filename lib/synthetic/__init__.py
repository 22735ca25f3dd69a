"""Procedural neuropil with all twelve classes, and how an annotator would leave it."""
