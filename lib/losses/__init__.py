"""The terms of the loss and their sum."""
