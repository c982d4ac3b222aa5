"""The parts of one run: its options, its cluster, verdicts, evidence, reports."""
