"""Volumes in Neuroglancer: what is shown of them, and keys that proofread. Adapter."""
