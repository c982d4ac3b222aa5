"""The unit tests. They need no cluster (those in node_image/ do)."""
