"""The JSON Schema of behaviors.json, for tests that read one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).parent.parent / "docs" / "behaviors.schema.json"


@cache
def schema() -> dict[str, Any]:
    """The schema."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return found


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def violations(report: Any) -> list[str]:
    """What the schema does not allow in a report, one line each; it begins with the place in the report."""
    found = _validator().iter_errors(report)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]
