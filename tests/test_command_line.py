"""Wrong input ends a run with one clear line and its own exit code. A run contacts only what it needs."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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


REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def test_an_unknown_context_is_named_with_the_existing_ones(verify: Verify, tmp_path: Path) -> None:
    kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")

    done = verify("--context", "nowhere")

    assert done.returncode == 4
    assert the_one_line(done) == "kubehave: no context 'nowhere'; there are: there"


@pytest.mark.parametrize("content", [None, "}{ no yaml", ""])
def test_an_unreadable_kubeconfig_is_named(verify: Verify, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "kubeconfig").write_text(content)

    done = verify("--context", "nowhere")

    assert done.returncode == 4
    assert str(tmp_path / "kubeconfig") in the_one_line(done)


def test_a_cluster_that_does_not_answer_is_named_with_its_address(verify: Verify, tmp_path: Path) -> None:
    kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")

    done = verify("--context", "there")

    assert done.returncode == 11
    assert "http://127.0.0.1:1 does not answer: " in the_one_line(done)


def test_a_cluster_without_an_answer_is_given_up_within_ten_seconds(verify: Verify, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{silent.getsockname()[1]}")
        done = verify("--context", "there")

    assert done.returncode == 11
    assert "does not answer: no answer within 9 s" in the_one_line(done)


def test_refused_credentials_are_named(verify: Verify, tmp_path: Path, stub: StubCluster) -> None:
    refused = {"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"}
    stub.answers["GET", "/version"] = (401, refused)
    kubeconfig(tmp_path / "kubeconfig", stub.address)

    done = verify("--context", "there")

    assert done.returncode == 11
    assert the_one_line(done) == f"kubehave: {stub.address} refuses the credentials: 401 Unauthorized"


def test_a_missing_right_is_named(verify: Verify, tmp_path: Path, stub: StubCluster) -> None:
    stub.answers["POST", REVIEWS] = (201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": False}})
    kubeconfig(tmp_path / "kubeconfig", stub.address)

    done = verify("--context", "there")

    assert done.returncode == 11
    line = the_one_line(done)
    assert line == f"kubehave: {stub.address}: the right to create namespaces is missing for this context's user"


def test_loopback_is_not_reached_through_a_proxy(verify: Verify, tmp_path: Path, stub: StubCluster) -> None:
    stub.answers["POST", REVIEWS] = (201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": False}})
    kubeconfig(tmp_path / "kubeconfig", stub.address)
    proxy = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1")

    done = verify("--context", "there", **proxy, NO_PROXY="example.com", no_proxy="example.com")

    assert "the right to create namespaces is missing" in the_one_line(done)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["suites/test_pds.py"], "no such file or folder: suites/test_pds.py"),
        (["--patience", "0"], "--patience must be a number above 0"),
        (["--context", "x", "--keep"], "--keep and --node-image are for the run's own cluster"),
        (["--keep-namespaces", "always"], "--keep-namespaces needs --keep or --context"),
    ],
)
def test_a_usage_error_is_reported_before_anything_is_created(verify: Verify, args: list[str], complaint: str) -> None:
    done = verify(*args)

    assert done.returncode == 4
    assert complaint in the_one_line(done)


def test_without_an_engine_and_with_no_install_a_line_names_the_remedy(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = verify("--no-install", PATH=str(tmp_path / "empty"))

    assert done.returncode == 12
    assert "podman" in the_one_line(done)


@pytest.mark.parametrize("option", ["--help", "--setup-plan"])
def test_options_that_only_print_contact_nothing(verify: Verify, tmp_path: Path, option: str) -> None:
    (tmp_path / "empty").mkdir()

    done = verify(option, "suites", PATH=str(tmp_path / "empty"))

    assert done.returncode == 0, done.stdout + done.stderr


def test_list_images_prints_what_a_mirror_needs(verify: Verify) -> None:
    done = verify("--list-images")

    images = done.stdout.split()
    assert done.returncode == 0
    assert any("node" in image for image in images)
    assert "registry.k8s.io/e2e-test-images/agnhost:2.63.0" in images
    assert not any(image.startswith("localhost/") for image in images)


def test_a_venv_that_kubehave_did_not_make_is_not_changed(root: Path, tmp_path: Path) -> None:
    for name in ("verify", "environment", "requirements.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "verify").chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").touch()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "behaviors.json").write_text('{"verdict": "holds"}')

    done = subprocess.run([tmp_path / "verify"], stdin=subprocess.DEVNULL, capture_output=True, text=True)

    assert done.returncode == 12
    assert the_one_line(done) == "kubehave: there is a .venv that kubehave did not make; move it away, then try again"
    assert (tmp_path / ".venv" / "mine").exists()
    assert (tmp_path / "report" / "previous" / "behaviors.json").exists()
    assert not (tmp_path / "report" / "behaviors.json").exists()
