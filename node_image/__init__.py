"""The node image: which one a cluster uses, and how one is built from package registries only."""
