"""What losses and prediction ask of labels: objects, weights, directions, pairs."""
