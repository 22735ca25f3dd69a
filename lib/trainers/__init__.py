"""The trainer that MONAI Label starts. Adapter."""
