"""The tasks that viewers call: segmentation, instances, proofread and their like. Adapter."""
