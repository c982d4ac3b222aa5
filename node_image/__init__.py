"""The node image: which one a cluster is made of, and how one is built from package registries alone."""
