"""HTML pages of one self-contained file: a template, with style and script inside."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["css_class"] = css_class
    environment.filters["seconds"] = seconds
    environment.filters["prose"] = prose
    return environment


def css_class(verdict: str) -> str:
    """The class of a verdict in page.css: "not-observed"."""
    return verdict.replace(" ", "-")


def seconds(number: float) -> str:
    """A time for people: "0.4 s", "48 s", "3:05 min"."""
    if number < 9.95:
        return f"{number:.1f} s"
    whole = round(number)
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02} min"


def prose(text: str) -> Markup:
    """A text in which `backticks` mark code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def render(template: str, script: str | None = None, **values: Any) -> str:
    """A page from a template that extends base.html, with page.css and, if it is named, a script of the same folder.

    The page's Content Security Policy allows this style and this script, and no request at all.
    """
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    code = (TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(code)}"
    return (
        _environment()
        .get_template(template)
        .render(style=Markup(style), script=Markup(code), policy=Markup(policy), **values)
    )


def _hash(text: str) -> str:
    """The source that allows only this text, in the words of a Content Security Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
