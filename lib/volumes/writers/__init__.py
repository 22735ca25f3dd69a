"""Where exported labels go: one module for each kind of target."""
