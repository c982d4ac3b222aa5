"""Wrong input ends a run with one clear line and its own exit code. A run contacts only what it needs."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.api import Connection, _never_proxy_loopback
from machine.exits import CannotRun
from runner.cluster import ANSWERS_WITHIN, check, find_context
from runner.options import check_usage
from runner.run import NEEDED_RIGHTS
from tests.stub_cluster import StubCluster, kubeconfig

Verify = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def verify(root: Path, tmp_path: Path) -> Verify:
    """`./verify` as it runs in its environment, with its own cache, kubeconfig and report."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "KUBECONFIG": str(tmp_path / "kubeconfig")}
        return subprocess.run(
            [sys.executable, "-m", "runner", "--report", str(tmp_path / "report"), *args],
            cwd=root,
            env={**os.environ, **own, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def the_one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def stub() -> Iterator[StubCluster]:
    """A cluster that allows everything, unless a test changes that."""
    cluster = StubCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def nothing_on_the_path(tmp_path: Path) -> str:
    """A PATH without any program."""
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "empty")


REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def test_an_unknown_context_is_named_with_the_existing_ones(verify: Verify, tmp_path: Path) -> None:
    kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")

    done = verify("--context", "nowhere")

    assert done.returncode == 4
    assert the_one_line(done) == "kubehave: no context 'nowhere'; there are: there"


@pytest.mark.parametrize("content", [None, "}{ no yaml", ""])
def test_an_unreadable_kubeconfig_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    # The client has read the variable when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    with pytest.raises(CannotRun, match="is not readable") as refusal:
        find_context("nowhere")

    assert refusal.value.exit_code == 4
    (line,) = str(refusal.value).splitlines()
    assert str(path) in line


def refusal_of(server: str, folder: Path) -> str:
    """The line with which a run on this cluster ends before its tests."""
    kubeconfig(folder / "kubeconfig", server)
    with pytest.raises(CannotRun) as refusal:
        check(Connection(str(folder / "kubeconfig"), "there"), NEEDED_RIGHTS)
    assert refusal.value.exit_code == 11
    (line,) = str(refusal.value).splitlines()
    return line


def test_a_cluster_that_does_not_answer_is_named_with_its_address(tmp_path: Path) -> None:
    assert refusal_of("http://127.0.0.1:1", tmp_path).startswith("http://127.0.0.1:1 does not answer: ")


def test_a_cluster_that_is_too_old_is_refused(tmp_path: Path, stub: StubCluster) -> None:
    stub.version = {"major": "1", "minor": "28+", "gitVersion": "v1.28.1"}

    line = refusal_of(stub.address, tmp_path)

    assert line == f"{stub.address} runs Kubernetes v1.28.1; 1.33 or newer is needed"


def test_refused_credentials_are_named(tmp_path: Path, stub: StubCluster) -> None:
    refused = {"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"}
    stub.answers["GET", "/version"] = (401, refused)

    assert refusal_of(stub.address, tmp_path) == f"{stub.address} refuses the credentials: 401 Unauthorized"


def test_a_missing_right_is_named(tmp_path: Path, stub: StubCluster) -> None:
    stub.answers["POST", REVIEWS] = (201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": False}})

    line = refusal_of(stub.address, tmp_path)

    assert line == f"{stub.address}: the right to create namespaces is missing for this context's user"


def test_a_cluster_without_an_answer_is_given_up_within_ten_seconds(verify: Verify, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{silent.getsockname()[1]}")
        done = verify("--context", "there", "--patience", "0.1")

    assert done.returncode == 11
    assert "does not answer: no answer within 0.9 s" in the_one_line(done)
    assert ANSWERS_WITHIN < 10


def test_loopback_is_not_reached_through_a_proxy(verify: Verify, tmp_path: Path, stub: StubCluster) -> None:
    stub.answers["POST", REVIEWS] = (201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": False}})
    kubeconfig(tmp_path / "kubeconfig", stub.address)
    proxy = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1")

    done = verify("--context", "there", **proxy, NO_PROXY="example.com", no_proxy="example.com")

    assert done.returncode == 11
    assert "the right to create namespaces is missing" in the_one_line(done)


def test_a_usage_error_is_reported_before_anything_is_created(verify: Verify) -> None:
    done = verify("suites/test_pds.py")

    assert done.returncode == 4
    assert the_one_line(done) == "kubehave: no such file or folder: suites/test_pds.py"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"patience": 0}, "--patience must be a number above 0"),
        ({"context": "x", "keep": True}, "--keep and --node-image are for the run's own cluster"),
        ({"context": "x", "node_image": "y"}, "--keep and --node-image are for the run's own cluster"),
        ({"allow_cluster_scoped_changes": True}, "--allow-cluster-scoped-changes needs --context"),
        ({"keep_namespaces": "always"}, "--keep-namespaces needs --keep or --context"),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], complaint: str
) -> None:
    for name, value in options.items():
        monkeypatch.setattr(pytestconfig.option, name, value)

    with pytest.raises(CannotRun, match=complaint) as refusal:
        check_usage(pytestconfig)

    assert refusal.value.exit_code == 4


def test_without_an_engine_and_with_no_install_a_line_names_the_remedy(
    verify: Verify, nothing_on_the_path: str
) -> None:
    done = verify("--no-install", PATH=nothing_on_the_path)

    assert done.returncode == 12
    assert "podman" in the_one_line(done)


def test_help_contacts_nothing(verify: Verify, nothing_on_the_path: str) -> None:
    done = verify("--help", "suites", PATH=nothing_on_the_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plan_of_all_suites_contacts_nothing_and_agrees_with_the_catalogue(
    verify: Verify, nothing_on_the_path: str
) -> None:
    done = verify("--setup-plan", "suites", PATH=nothing_on_the_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "suites/test_statefulsets.py::" in done.stdout


def test_list_images_contacts_nothing_and_prints_what_a_mirror_needs(verify: Verify, nothing_on_the_path: str) -> None:
    done = verify("--list-images", PATH=nothing_on_the_path)

    images = done.stdout.split()
    assert done.returncode == 0
    assert any("node" in image for image in images)
    assert "registry.k8s.io/e2e-test-images/agnhost:2.63.0" in images
    assert not any(image.startswith("localhost/") for image in images)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"])
def test_no_loopback_address_is_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    from kubernetes.client.rest import should_bypass_proxies

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "example.com")

    _never_proxy_loopback()

    assert should_bypass_proxies(f"https://{host}:6443", os.environ["no_proxy"])
    assert not should_bypass_proxies("https://10.0.0.1:6443", os.environ["no_proxy"])


@pytest.fixture
def foreign_venv(root: Path, tmp_path: Path) -> Path:
    """A checkout with a .venv that kubehave did not make, and with an empty folder for the report."""
    for name in ("verify", "environment", "requirements.txt", "requirements-selftest.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "verify").chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").touch()
    (tmp_path / "report").mkdir()
    return tmp_path


@pytest.mark.parametrize(("earlier", "kept"), [('{"verdict": "holds"}', True), ('{"behaviors": []}', False)])
def test_a_venv_that_kubehave_did_not_make_is_not_changed(foreign_venv: Path, earlier: str, kept: bool) -> None:
    report = foreign_venv / "report"
    for name in ("behaviors.json", "junit.xml"):
        (report / name).write_text(earlier)

    done = subprocess.run([foreign_venv / "verify"], stdin=subprocess.DEVNULL, capture_output=True, text=True)

    assert done.returncode == 12
    assert the_one_line(done) == "kubehave: there is a .venv that kubehave did not make; move it away, then try again"
    assert (foreign_venv / ".venv" / "mine").exists()
    for name in ("behaviors.json", "junit.xml"):
        assert (report / "previous" / name).exists() is kept
        assert not (report / name).exists()


def test_the_environment_of_selftest_has_all_of_a_run_in_the_same_versions(root: Path) -> None:
    a_run, selftest = (
        set(re.findall(r"^\S+==\S+", (root / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-selftest.txt")
    )

    assert a_run
    assert a_run < selftest


def test_the_book_needs_neither_cluster_nor_report(verify: Verify, tmp_path: Path) -> None:
    done = verify("--book", str(tmp_path / "book.html"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "objects/replicaset-of-three" in (tmp_path / "book.html").read_text()
    assert not (tmp_path / "report").exists()


def test_a_book_that_cannot_be_written_is_one_line(verify: Verify, tmp_path: Path) -> None:
    done = verify("--book", str(tmp_path / "missing" / "book.html"))

    assert done.returncode == 12
    assert the_one_line(done).startswith("kubehave: the book cannot be written: ")
