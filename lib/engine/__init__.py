"""Training: steps, runs, checkpoints, validation, publication; the `train` command."""
