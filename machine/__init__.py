"""Everything about this machine: the container engine, kind, Debian packages, cached build steps."""
