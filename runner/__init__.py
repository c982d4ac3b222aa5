"""The parts of one run: its options, its cluster, the catalogue, verdicts, evidence, reports."""
