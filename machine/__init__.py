"""What deals with this machine: the container engine, kind, Debian packages, cached build steps."""
