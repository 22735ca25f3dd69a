"""DICOM: series, segmentations, and what of an item they hold."""
