"""Strategies and scoring methods as MONAI Label calls them. Adapter."""
