"""MONAI Label's server mended, and what its adapters share. Adapter."""
