"""Runs on clusters that are not the suite's own, and checks of what comes out: `tox run -e foreign [ROW ...]`.

`rows` says which clusters there are and what each must give; the other modules make them and look.
"""
