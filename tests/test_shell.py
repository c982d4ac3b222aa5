"""What the console types, and how its output is read. Here kubectl is a function."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.kubectl import Kubectl
from fixtures.shell import Shell, described, names, table
from machine.output import Output

PODS = """\
NAME     READY   NOMINATED NODE   AGE
web-0    1/1     <none>           5s
web-10                            10s

NAME          TYPE        PORT(S)
service/web   ClusterIP   80/TCP
"""


class FakeKubectl:
    """Records what it is told."""

    def __init__(self, code: int = 0, stderr: str = "") -> None:
        self.code, self.stderr = code, stderr
        self.told: list[Any] = []

    def __call__(self, *args: str, typed: str, editor: str) -> Output:
        """Return the same output for every command."""
        self.told += [args, typed]
        return Output("printed\n", self.stderr, self.code)

    def forward(self, *args: Any) -> AbstractContextManager[None]:
        """Forward nothing."""
        self.told.append(args)
        return nullcontext()


def shell(folder: Path, kubectl: FakeKubectl) -> Shell:
    return Shell(cast("Kubectl", kubectl), folder)


def test_a_line_is_typed_as_in_a_shell(tmp_path: Path) -> None:
    kubectl = FakeKubectl()

    printed = shell(tmp_path, kubectl)("""kubectl patch sc x -p '{"a": "b c"}'""", "one", "two")

    assert printed == "printed\n"
    assert kubectl.told == [("patch", "sc", "x", "-p", '{"a": "b c"}'), "one\ntwo\n"]


def test_names_of_the_tests_own_are_typed_instead(tmp_path: Path) -> None:
    kubectl = FakeKubectl()
    console = shell(tmp_path, kubectl)
    console.instead["-n pacman"] = "-n own"

    console("kubectl scale deployment pacman -n pacman")

    assert kubectl.told[0] == ("scale", "deployment", "pacman", "-n", "own")


def test_a_port_is_forwarded_with_the_options_of_the_line(tmp_path: Path) -> None:
    kubectl = FakeKubectl()
    console = shell(tmp_path, kubectl)
    console.instead["-n pacman"] = "-n own"

    with console.forward("kubectl port-forward svc/pacman 9090:80 -n pacman"):
        pass

    assert kubectl.told == [("svc/pacman", 9090, 80, "-n", "own")]


def test_a_line_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"\$ kubectl get x\nerror: no such resource"):
        shell(tmp_path, FakeKubectl(1, "error: no such resource"))("kubectl get x")


def test_a_file_is_written_and_changed_in_one_place(tmp_path: Path) -> None:
    console = shell(tmp_path, FakeKubectl())
    console.write([{"kind": "Pod"}, {"kind": "Service"}], "two.yaml")

    console.change("two.yaml", "Pod", "Job")

    assert console.read("two.yaml") == "kind: Job\n---\nkind: Service\n"
    with pytest.raises(ValueError, match="2 times 'kind'"):
        console.change("two.yaml", "kind", "x")


def test_a_table_is_read_by_the_heads_of_its_columns() -> None:
    assert table(PODS) == [
        {"NAME": "web-0", "READY": "1/1", "NOMINATED NODE": "<none>", "AGE": "5s"},
        {"NAME": "web-10", "READY": "", "NOMINATED NODE": "", "AGE": "10s"},
        {"NAME": "service/web", "TYPE": "ClusterIP", "PORT(S)": "80/TCP"},
    ]
    assert names(PODS) == {"web-0", "web-10", "service/web"}
    assert table("") == []


def test_the_first_field_of_that_name_is_read() -> None:
    printed = "Name:   web\nIP:     10.0.0.1\nIPs:\n  IP:   10.0.0.2\n"

    assert described(printed, "IP") == "10.0.0.1"
    assert described(printed, "Node") == ""
