"""One module for each kind of file; `lib.volumes.readers.opening` picks the one that fits."""
