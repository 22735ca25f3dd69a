"""Dense prediction: windows, features, classes, affinities, grouping; the `predict` command."""
