"""Wiring only: the plugins that make a run and give tests their fixtures, each after those that it builds on."""

import pytest

#: A failed assert in a fixture says what it compared, as one in a test does.
pytest.register_assert_rewrite("fixtures", "runner")

pytest_plugins = [
    "runner.catalogue",
    "fixtures.shared",
    "fixtures.api",
    "fixtures.namespaces",
    "fixtures.nodes",
    "fixtures.clients",
    "fixtures.cloud",
    "fixtures.ingress",
    "fixtures.kubectl",
    "runner.capabilities",
    "runner.evidence",
    "runner.run",
]
