"""Runs the suites on clusters that are not their own, and checks the results: `tox run -e foreign [ROW ...]`.

`rows` lists the clusters and the expected results. The other modules make the clusters and check the results.
"""
