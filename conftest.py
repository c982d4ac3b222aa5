"""Wiring only: the plugins that make a run and give tests their fixtures, each after those that it builds on."""

import pytest

#: A failed assert in a fixture says what it compared, as one in a test does.
pytest.register_assert_rewrite("fixtures")

pytest_plugins = [
    "fixtures.catalogue",
    "fixtures.namespaces",
    "fixtures.nodes",
    "fixtures.clients",
    "fixtures.capabilities",
    "fixtures.cloud",
    "fixtures.ingress",
    "fixtures.evidence",
    "fixtures.run",
    "fixtures.kubectl",
]
