"""Typed settings, where they come from, and the options that commands share."""
