"""Only a list of plugins: they make a run and provide the fixtures. Each comes after those that it uses."""

import pytest

#: pytest then explains a failed assert in a fixture as it does in a test.
pytest.register_assert_rewrite("fixtures")

pytest_plugins = [
    "runner.agreement",
    "runner.options",
    "runner.every_test",
    "fixtures.retried",
    "fixtures.api",
    "fixtures.namespaces",
    "fixtures.nodes",
    "fixtures.clients",
    "fixtures.pod_ranges",
    "fixtures.cloud",
    "fixtures.ingress",
    "fixtures.kubectl",
    "fixtures.shell",
    "fixtures.storage",
    "runner.capabilities",
    "runner.evidence",
    "runner.choice",
    "runner.inquiry",
    "runner.run",
]
