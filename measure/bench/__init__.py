"""The bench: what whole runs take, and how two checkouts compare."""
