"""Arrays in and out: readers, targets, records, studies, frames; files that appear whole."""
