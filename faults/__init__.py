"""Clusters that are wrong in one known way: one file a fault, and what makes a cluster so and undoes it."""
