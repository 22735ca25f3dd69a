"""Current objects: the log of edits, replay, undo."""
