"""Python and YAML with syntax colors, as HTML: five classes of page.css, so that a page of all tests stays small."""

from __future__ import annotations

from functools import cache
from itertools import groupby

from markupsafe import Markup, escape
from pygments.lexer import Lexer
from pygments.lexers.data import YamlLexer
from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType, is_token_subtype

#: The class of each kind of token, the first that fits. All others have none.
CLASSES = (
    (Comment, "c"),
    (String, "s"),
    (Keyword, "k"),
    (Operator.Word, "k"),
    (Number, "n"),
    (Name.Tag, "f"),
    (Name.Decorator, "f"),
    (Name.Function, "f"),
)


@cache
def _css_class(token: _TokenType) -> str:
    return next((name for kind, name in CLASSES if is_token_subtype(token, kind)), "")


def _colored(lexer: Lexer, text: str) -> Markup:
    """The text with a span around each run of tokens of one class."""
    parts = []
    for name, tokens in groupby(lexer.get_tokens(text), key=lambda token: _css_class(token[0])):
        run = escape("".join(value for _, value in tokens))
        parts.append(f'<span class="{name}">{run}</span>' if name else run)
    return Markup("".join(parts))


_PYTHON, _YAML = PythonLexer(stripnl=False), YamlLexer(stripnl=False)


def python(text: str) -> Markup:
    """Python code."""
    return _colored(_PYTHON, text)


def yaml(text: str) -> Markup:
    """A manifest."""
    return _colored(_YAML, text)
