"""What to annotate or proofread next, and the scores that decide it."""
