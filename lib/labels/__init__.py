"""What label values mean: classes, groups, class sets, segment names, encodings."""
