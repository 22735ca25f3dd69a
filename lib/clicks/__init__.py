"""From clicks to the clicked object."""
