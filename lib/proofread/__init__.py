"""Current objects: the log of edits, its replay, and clicks and submissions on what stands."""
