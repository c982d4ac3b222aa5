"""What a test knows of Secrets is in no text about it."""

import base64
from typing import Any

import pytest

from fixtures import hidden
from fixtures.hidden import HIDDEN, hide, hide_in, learn, learn_text


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "_values", set())


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(**data: str) -> dict[str, Any]:
    return {"kind": "Secret", "data": {key: encoded(value) for key, value in data.items()}}


def test_a_value_is_hidden_as_text_and_as_base64() -> None:
    learn(secret(password="correct horse"))

    assert hide(f"assert 'correct horse' == '{encoded('correct horse')}'") == f"assert '{HIDDEN}' == '{HIDDEN}'"


def test_the_secrets_of_a_list_and_their_string_data_count() -> None:
    learn({"kind": "SecretList", "items": [{"data": {"a": encoded("first value")}}]})
    learn({"kind": "Secret", "stringData": {"b": "second value"}})

    assert hide("first value, second value") == f"{HIDDEN}, {HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: Pod\n---\nkind: Secret\nstringData:\n  password: correct horse\n",
        '{"kind": "Secret", "data": {"password": "Y29ycmVjdCBob3JzZQ=="}}',
        'kind: List\nitems:\n- kind: Pod\n- kind: Secret\n  data: {password: "Y29ycmVjdCBob3JzZQ=="}\n',
    ],
)
def test_what_kubectl_reads_and_prints_counts(text: str) -> None:
    learn_text(text)

    assert hide("the password is correct horse") == f"the password is {HIDDEN}"


@pytest.mark.parametrize(
    "text", ["kind: Secret\n\t- no YAML", "kind: Secretary\ndata: {a: correct horse}", "Secret web"]
)
def test_other_texts_are_ignored(text: str) -> None:
    learn_text(text)

    assert hide("correct horse") == "correct horse"


def test_a_longer_value_that_contains_a_shorter_one_is_hidden_as_a_whole() -> None:
    learn(secret(one="pass", other="passphrase"))

    assert hide("passphrase") == HIDDEN


def test_the_lines_of_a_value_are_hidden_one_by_one() -> None:
    learn(secret(file="first line of it\nsecond line, which is long"))

    assert hide("assert 'second line, which is long' in page") == f"assert '{HIDDEN}' in page"


def test_other_objects_short_values_and_public_keys_are_not_hidden() -> None:
    learn({"kind": "ConfigMap", "data": {"a": "settings"}})
    learn({"kind": "Secret", "data": {"namespace": encoded("default"), "short": encoded("no"), "empty": None}})

    assert hide("settings, default, no") == "settings, default, no"


def test_tokens_and_private_keys_are_hidden_although_no_secret_has_them() -> None:
    token = ".".join((encoded('{"alg":"RS256"}'), encoded('{"iss":"kubernetes"}'), "signature")).replace("=", "")
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"

    assert hide(f"Bearer {token}\n{key}\nend") == f"Bearer {HIDDEN}\n{HIDDEN}\nend"


def test_a_structure_is_cleaned_at_any_depth() -> None:
    class Part:
        def __init__(self) -> None:
            self.lines = ["a", "correct horse"]
            self.place = ("file.py", 3, "correct horse")

    learn(secret(password="correct horse"))

    cleaned = hide_in(Part())

    assert cleaned.lines == ["a", HIDDEN]
    assert cleaned.place == ("file.py", 3, HIDDEN)
