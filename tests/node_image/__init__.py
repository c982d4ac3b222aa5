"""Tests of the node image, on a cluster that uses it."""
