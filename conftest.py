"""Wiring only: the plugins that make a run and give tests their fixtures, each after those that it builds on."""

pytest_plugins = [
    "fixtures.catalogue",
    "fixtures.namespaces",
    "fixtures.nodes",
    "fixtures.clients",
    "fixtures.capabilities",
    "fixtures.cloud",
    "fixtures.evidence",
    "fixtures.run",
    "fixtures.kubectl",
]
