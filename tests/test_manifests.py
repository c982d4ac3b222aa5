"""Every manifest has a header, pinned images, correct spelling and no namespace."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.fields import misspelled
from fixtures.manifests import FOLDER, Loader, as_yaml, images_of, load_all, names
from node_image.images import IMAGES, SYSTEM_IMAGES

#: A tag that names one version: at least major and minor, and no word such as `latest`.
PINNED = re.compile(r"^[^@\s]+:(?:distroless-)?v?\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$")

#: The only file that creates a namespace, because it shows just that.
MAKES_ITS_NAMESPACE = "application/pacman.yaml"


def line_of(text: str, document: int, path: tuple[str | int, ...]) -> int:
    """The line number, from 1, of a field of a document."""
    node: Any = list(yaml.compose_all(text))[document]
    line = 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            key, node = next((key, value) for key, value in node.value if key.value == str(step))
            line = key.start_mark.line + 1
        else:
            node = node.value[step]
    return line


def misspelled_lines(text: str, label: str) -> Iterator[str]:
    for number, document in enumerate(yaml.load_all(text, Loader)):
        for path, why in misspelled(document):
            yield f"{label}:{line_of(text, number, path)}: {path[-1]}: {why}"


def unpinned_lines(text: str, label: str) -> Iterator[str]:
    for document in yaml.load_all(text, Loader):
        for image in images_of(document):
            if not PINNED.search(image):
                line = next(n for n, content in enumerate(text.splitlines(), 1) if image in content)
                yield f"{label}:{line}: {image}: no pinned tag"


def test_there_are_manifests() -> None:
    assert len(list(names())) >= 10


@pytest.mark.parametrize("name", list(names()))
def test_a_manifest_has_a_header(name: str) -> None:
    head = (FOLDER / name).read_text().split("\napiVersion", maxsplit=1)[0]

    assert len(head.splitlines()) >= 2, f"{name}: say in its header what it shows, where from, and what was changed"
    above = [line for line in head.splitlines() if not line.startswith(("#", "---"))]
    assert above == [], f"{name}: begin with a header of comments, then apiVersion; nothing else stands above it"


@pytest.mark.parametrize("name", list(names()))
def test_a_manifest_has_no_misspelled_field(name: str) -> None:
    found = list(misspelled_lines((FOLDER / name).read_text(), f"manifests/{name}"))

    if name.endswith(".refused.yaml"):
        assert found, f"{name}: is named refused, but the API knows all its fields"
    else:
        assert found == []


@pytest.mark.parametrize("name", list(names()))
def test_a_manifest_has_pinned_images_only(name: str) -> None:
    assert list(unpinned_lines((FOLDER / name).read_text(), f"manifests/{name}")) == []


@pytest.mark.parametrize("name", [name for name in names() if name != MAKES_ITS_NAMESPACE])
def test_a_manifest_names_no_namespace(name: str) -> None:
    for document in load_all(name):
        assert "namespace" not in document["metadata"], f"{name}: leave the namespace out; each test has its own"


def full_name(image: str) -> str:
    """An image's name with its registry, as nodes know it."""
    first, _, rest = image.partition("/")
    if not rest:
        return f"docker.io/library/{image}"
    return image if "." in first or first == "localhost" else f"docker.io/{image}"


@pytest.mark.parametrize("name", list(names()))
def test_the_images_of_a_manifest_are_on_the_nodes(name: str) -> None:
    used = {full_name(image) for document in load_all(name) for image in images_of(document)}
    missing = {image for image in used if not image.startswith("localhost/")} - {*IMAGES, *SYSTEM_IMAGES}

    assert not missing, f"{name}: add {', '.join(missing)} to node_image/images.py, or take an image that is there"


def test_the_line_of_a_misspelled_field_is_named() -> None:
    text = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: a\n      imagePullPolicies: Never\n"

    assert list(misspelled_lines(text, "x.yaml")) == [
        "x.yaml:6: imagePullPolicies: no such field; did you mean imagePullPolicy?"
    ]


@pytest.mark.parametrize("image", ["nginx", "nginx:latest", "nginx:1", "localhost:5000/nginx", "nginx:stable-alpine"])
def test_an_image_without_a_pinned_tag_is_found(image: str) -> None:
    text = f"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - image: {image}\n"

    assert list(unpinned_lines(text, "x.yaml")) == [f"x.yaml:5: {image}: no pinned tag"]


def test_a_duplicate_key_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice.yaml").write_text("spec:\n  replicas: 3\n  replicas: 4\n")
    monkeypatch.setattr("fixtures.manifests.FOLDER", tmp_path)

    with pytest.raises(yaml.YAMLError, match="written twice"):
        load_all("twice.yaml")


@pytest.mark.parametrize("text", ["9405e0", "007", "1_0", ".5", "+1e3", "0x1f"])
def test_a_string_that_looks_like_a_number_is_quoted(text: str) -> None:
    assert as_yaml([{"name": text}]) == f"name: '{text}'\n"
