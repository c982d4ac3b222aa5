"""The project's own tests: they need no cluster."""
