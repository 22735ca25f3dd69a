"""What objects measure: tables, skeletons, meshes; the `measure` command."""
