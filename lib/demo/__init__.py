"""Demo studies and the acted annotation session; the `demo` command."""
