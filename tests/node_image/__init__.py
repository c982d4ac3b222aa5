"""Tests of the node image on a cluster made of it."""
