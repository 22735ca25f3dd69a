"""The one network: backbones, heads, its weights files, and where it computes."""
