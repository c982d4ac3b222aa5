"""What the project teaches, for people: the catalogue, the tests as lessons, and the pages about a run."""
