"""Fixtures of the unit tests."""

import os
from pathlib import Path

# Functions import it when they need it. No test that has replaced the clock or the environment must be the first to do so.
import kubernetes  # noqa: F401, TID253
import pytest

# Sample runs must not write into the summary of the job that runs these tests.
os.environ.pop("GITHUB_STEP_SUMMARY", None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return Path(__file__).parent.parent
