"""DICOM series and SEG, and the `export` command, which knows both ways out."""
