"""What a run prints while it goes on: the line on a terminal, the lines in a log, the answer to SIGUSR1."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import kube as kubes
from fixtures import waiting
from fixtures.fields import Fields
from fixtures.patience import Budget
from fixtures.waiting import eventually, throughout
from runner import inquiry
from runner.progress import Course, Screen, seconds_of
from tests.stub_cluster import StubCluster
from tests.test_run import Ended, ended, start, write_sample

# --- the estimate


def course(earlier: dict[str, float], *tests: str, workers: int = 1) -> Course:
    """A run of these tests, the first of which begins at the moment 0."""
    run = Course(earlier, workers)
    run.choose(tests)
    run.begin(tests[0], 0.0)
    return run


def test_the_time_left_is_that_of_the_last_run() -> None:
    run = course({"s.py::test_a": 10, "s.py::test_b": 20}, "s.py::test_a", "s.py::test_b")

    assert run.left(0) == 30
    assert run.left(4) == 26


def test_a_test_without_an_earlier_time_takes_the_median() -> None:
    run = course({"s.py::test_a": 2, "x": 4, "y": 600}, "s.py::test_a", "s.py::test_new")

    assert run.left(0) == 2 + 4


def test_nothing_is_said_about_time_while_nothing_is_known() -> None:
    run = course({}, "s.py::test_a", "s.py::test_b")

    assert run.left(3) is None
    assert run.line(3) == "0 of 2, running: a (3 s)"
    run.end("s.py::test_a", 5.0)
    assert run.left(5) == pytest.approx(5.0)


def test_several_workers_share_the_work_but_not_a_test() -> None:
    tests = [f"s.py::test_{number}" for number in range(8)]

    assert course(dict.fromkeys(tests, 10.0), *tests, workers=4).left(0) == 20
    assert course({**dict.fromkeys(tests, 10.0), tests[7]: 60}, *tests, workers=4).left(0) == 60


def test_the_tests_of_a_group_run_one_after_another() -> None:
    tests = [f"s.py::test_{number}@cluster" for number in range(4)]

    run = course(dict.fromkeys((test.partition("@")[0] for test in tests), 10.0), *tests, workers=4)

    assert run.left(0) == 40


def test_a_slow_machine_gets_more_time() -> None:
    tests = [f"s.py::test_{number}" for number in range(200)]
    run = course(dict.fromkeys(tests, 1.0), *tests, workers=2)
    for number in range(50):
        run.begin(tests[number], 4.0 * number)
        run.end(tests[number], 4.0)

    left = run.left(200)

    # 50 of 200 seconds of work took 200 s, and 150 are left.
    assert left is not None
    assert 400 < left < 600


def test_the_line_has_what_ended_what_is_left_and_what_runs_longest() -> None:
    tests = ["s.py::test_a", "s.py::test_b[1]", "s.py::test_c@group", "s.py::test_d"]
    run = course({test.partition("@")[0]: 40.0 for test in tests}, *tests)
    run.end(tests[0], 38.0)
    run.begin(tests[1], 38.0)
    run.begin(tests[2], 42.0)

    assert re.fullmatch(r"1 of 4, about 1:\d[05] left, running: b\[1\] \(12 s\), c \(8 s\)", run.line(50))


@pytest.mark.parametrize("content", [None, "", "[]", '{"tests": []}', '{"tests": {"a": {}}}', '{"tests": {"a": null}}'])
def test_an_earlier_report_that_cannot_be_used_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "behaviors.json"
    if content is not None:
        file.write_text(content)

    assert seconds_of(file) == {}


# --- the screen


def seen(printed: str) -> list[str]:
    """What a terminal shows after this was printed. A carriage return begins the line again, and nothing else moves."""
    lines = []
    for line in printed.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_line_is_rewritten_in_place() -> None:
    stream = io.StringIO()
    screen = Screen(stream)

    screen.rewrite("10 of 20, running: long")
    screen.rewrite("11 of 20")
    screen.rewrite("11 of 20")

    assert seen(stream.getvalue()) == ["11 of 20"]
    assert stream.getvalue().count("11 of 20") == 1


def test_the_line_goes_before_anything_else_is_printed() -> None:
    class Writer:
        def write_raw(self, text: str, *, flush: bool = False) -> None:
            stream.write(text)

    stream, writer = io.StringIO(), Writer()
    screen = Screen(stream)

    with screen.beside(writer):
        screen.rewrite("10 of 20")
        writer.write_raw("no\n")
        screen.rewrite("11 of 20")
        screen.say("broken: x")
    screen.rewrite("12 of 20")
    writer.write_raw("!")

    assert seen(stream.getvalue()) == ["no", "kubehave: broken: x", "12 of 20!"]


def test_a_closed_terminal_fails_nothing() -> None:
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    screen = Screen(full)

    screen.rewrite("1 of 2")
    screen.say("broken")

    with pytest.raises(OSError, match="No space"):
        full.close()
    screen.say("closed")


# --- what a wait is in


def going_on() -> tuple[float, str]:
    """The budget of the wait that goes on, and what its last look has seen."""
    going = waiting.current()
    assert going
    return going.budget, str(going.error or "")


def test_the_wait_that_goes_on_is_known() -> None:
    looks = 0
    assert waiting.current() is None
    for look in eventually(within=5, every=0):
        with look:
            looks += 1
            for inner in throughout(lasting=0):
                with inner:
                    assert going_on() == (0, "")
            assert going_on() == (5, "" if looks == 1 else "look 1")
            if looks == 1:
                raise AssertionError("look 1")
    assert looks == 2
    assert waiting.current() is None


def test_no_wait_goes_on_after_one_that_failed() -> None:
    with pytest.raises(AssertionError):
        for look in eventually(within=0):
            with look:
                raise AssertionError
    assert waiting.current() is None
    with pytest.raises(AssertionError):
        for look in throughout(lasting=5):
            with look:
                raise AssertionError
    assert waiting.current() is None


# --- the answer to SIGUSR1


@pytest.fixture
def default_handler() -> Iterator[None]:
    """After the test SIGUSR1 has the handler that it had before."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("default_handler")
def test_a_process_answers_without_being_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "status": {"phase": "Pending"},
        "spec": {"nodeName": "worker"},
    }
    monkeypatch.setattr(kubes, "_last_read", ("Pod", [Fields.of(pod)], ""))
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "suites/test_x.py::test_a[b c]@group (call)")
    inquiry.answer(tmp_path, "gw7")
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    began, looks = time.monotonic(), 0
    for look in eventually(within=Budget(5, "pod_starts"), every=0.4):
        with look:
            looks += 1
            assert looks == 2, "web is Pending"

    assert time.monotonic() - began >= 0.4
    answer = json.loads((tmp_path / "gw7.answer").read_text())
    assert answer.pop("wait") == {
        "for": "pod_starts",
        "allowed": 5,
        "seconds": pytest.approx(0.1, abs=0.2),
        "said": "web is Pending",
    }
    assert answer == {
        "test": "suites/test_x.py::test_a[b c]",
        "phase": "call",
        "at": answer["at"],
        "read": "Pod web is Pending: no reason given",
    }


def test_an_answer_has_no_data_of_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.hidden._values", {"s3cr3t-planted"})
    monkeypatch.setattr(inquiry, "last_read", lambda: "ConfigMap with s3cr3t-planted")
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "suites/test_x.py::test_a (call)")
    monkeypatch.setattr(waiting, "_going", waiting.Going(5, 0, AssertionError("found s3cr3t-planted")))

    answer = inquiry.look(None)

    assert (answer["read"], answer["wait"]["said"]) == ("ConfigMap with (hidden)", "found (hidden)")


@pytest.mark.usefixtures("default_handler")
def test_a_handler_never_raises(tmp_path: Path) -> None:
    inquiry.answer(tmp_path, "gw7")
    (tmp_path / "gw7.process").unlink()
    tmp_path.rmdir()

    signal.raise_signal(signal.SIGUSR1)


def test_a_worker_that_does_not_answer_is_said_so() -> None:
    looks = [
        {
            "test": "s.py::test_b",
            "phase": "setup",
            "at": "fixtures/clients.py:9",
            "wait": {"for": "pod_starts", "allowed": 60.0, "seconds": 7.6, "said": "no Pod"},
            "read": "no Pod app=web",
        }
    ]

    assert inquiry.told({"s.py::test_a": 3.2, "s.py::test_b": 8}, looks) == [
        "  s.py::test_b: 8 s, setup at fixtures/clients.py:9",
        "    waits for pod_starts, 8 s of 60 s: no Pod",
        "    last read: no Pod app=web",
        "  s.py::test_a: 3 s; its process does not answer now",
    ]


def test_a_worker_that_has_ended_gets_no_signal(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    (tmp_path / "gw0.process").write_text(str(process.pid))
    inquiry.forget(tmp_path, "gw0")
    inquiry.forget(tmp_path, "gw0")

    assert inquiry.ask(tmp_path) == []

    assert process.poll() is None
    process.kill()
    process.wait()


# --- whole runs

RUN = """
import time
from pathlib import Path
from fixtures.inconclusive import Inconclusive
from fixtures.patience import patience
from fixtures.waiting import eventually

@pytest.mark.starts_first
@shows("waits")
def test_waits(kube):
    Path("began").touch()
    for look in eventually(within=patience.node_is_missed):
        with look:
            assert kube.pods() == []
            assert Path("go").exists(), "not yet"

@shows("fails")
def test_fails():
    print("what a test prints is captured")
    assert 2 == 3

@shows("unclear")
def test_unclear(): raise Inconclusive("no client")

@shows("holds")
def test_holds(): pass
"""

OFTEN = """
def pytest_configure():
    from runner import progress
    progress.ON_A_TERMINAL, progress.IN_A_LOG = 0.1, 0.4
"""

EARLIER = {
    "behaviors": [{"id": "objects/waits", "verdict": "holds"}],
    "tests": {
        "suites/test_sample.py::test_waits": {"seconds": 100.0},
        "suites/test_sample.py::test_fails": {"seconds": 1},
    },
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubCluster]:
    """A cluster without nodes."""
    cluster = StubCluster()
    yield cluster
    cluster.close()


def sample(folder: Path) -> None:
    """A sample checkout whose runs print their progress often, with the report of an earlier run."""
    write_sample(folder, RUN, {}, timeout=200)
    with (folder / "conftest.py").open("a") as conftest:
        conftest.write(OFTEN)
    (folder / "report").mkdir()
    (folder / "report" / "behaviors.json").write_text(json.dumps(EARLIER))


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until the run has come so far."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the run does not come so far"
        assert process.poll() is None, "the run has ended"
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["2", "0"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stub: StubCluster) -> Ended:
    """A run with two workers, and one without, that was asked once what it does, and whose output is no terminal."""
    folder = tmp_path_factory.mktemp("asked")
    sample(folder)
    with (folder / "printed").open("w") as output:
        process = start(folder, stub.address, "-n", request.param, "--dist", "loadgroup", output=output)
    printed = folder / "printed"
    until(lambda: printed.read_text().count(" of 4, about ") >= 3, process)
    deadline = time.monotonic() + 60
    while "last read: " not in printed.read_text():  # a busy machine may need longer than an answer may take
        assert time.monotonic() < deadline, "there is no answer"
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
    (folder / "go").touch()
    return replace(ended(folder, process), printed=printed.read_text())


def test_a_run_that_is_asked_goes_on(asked: Ended) -> None:
    assert asked.verdicts() == {"waits": "holds", "fails": "broken", "unclear": "inconclusive", "holds": "holds"}
    assert asked.code == 1
    assert "Traceback" not in asked.printed


def test_a_run_says_what_its_tests_do(asked: Ended) -> None:
    lines = asked.printed.splitlines()
    at = max(number for number, line in enumerate(lines) if "test_waits: " in line)

    assert re.fullmatch(r"kubehave: \d of 4, about \d:\d\d left; running:", lines[at - 1])
    assert re.fullmatch(
        r"kubehave:   suites/test_sample\.py::test_waits: \d+ s, call at suites/test_sample\.py:\d+", lines[at]
    )
    assert re.fullmatch(r"kubehave:     waits for node_is_missed, \d+ s of 150 s: not yet", lines[at + 1])
    assert lines[at + 2] == "kubehave:     last read: no Pod"


def test_a_log_gets_a_line_from_time_to_time_and_no_letters(asked: Ended) -> None:
    progress = re.findall(r"^kubehave: (\d) of 4, about (\d:\d\d) left", asked.printed, re.MULTILINE)

    assert len(progress) >= 3
    assert "%]" not in asked.printed
    assert not re.search(r"^\.|^suites/test_sample.py [.FE]", asked.printed, re.MULTILINE)
    assert "\r" not in asked.printed
    assert "what a test prints" not in asked.printed.partition("= FAILURES =")[0]


def test_a_test_that_does_not_hold_is_printed_at_once(asked: Ended) -> None:
    before, _, after = asked.printed.partition("= FAILURES =")

    assert "kubehave: broken: suites/test_sample.py::test_fails: assert 2 == 3\n" in before
    assert "kubehave: inconclusive: suites/test_sample.py::test_unclear: no client\n" in before
    assert after.count("FAILED suites/test_sample.py::test_fails") == 1
    assert "kubehave: 2 of 4 behaviors hold, 1 broken, 1 inconclusive\n" in after


class Terminal:
    """A terminal of 40 columns in which a run goes on."""

    def __init__(self, folder: Path, server: str, *args: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        with os.fdopen(slave, "w") as output:
            self.process = start(folder, server, *args, output=output, TERM="xterm", COLUMNS="", LINES="")
        self.printed = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._master, 4096):
                self.printed += part
        except OSError:  # the run has ended
            pass

    def ended(self) -> list[str]:
        """What the terminal shows after the run, without its colors."""
        self.process.wait(60)
        self._reader.join(10)
        os.close(self._master)
        return seen(self.plain)

    @property
    def plain(self) -> str:
        """What was printed so far, without colors."""
        return re.sub(r"\x1b\[[\d;]*m", "", self.printed.decode())


@pytest.fixture(scope="module", params=["2", "0"])
def terminal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stub: StubCluster
) -> tuple[str, list[str]]:
    """What a run has printed on a terminal, and what is there at its end."""
    folder = tmp_path_factory.mktemp("terminal")
    sample(folder)
    shown = Terminal(folder, stub.address, "-n", request.param, "--dist", "loadgroup")
    until(lambda: " of 4, about " in shown.plain, shown.process)
    (folder / "go").touch()
    at_the_end = shown.ended()
    return shown.plain, at_the_end


def test_a_terminal_shows_one_line_no_wider_than_itself(terminal: tuple[str, list[str]]) -> None:
    printed, _ = terminal
    drawn = re.findall(r"\r(\d of 4, about \d:\d\d left, running: [^\r\n]*)", printed)

    assert {len(line) for line in drawn} == {39}
    assert all(line.endswith("...") for line in drawn)


def test_nothing_of_the_line_stays(terminal: tuple[str, list[str]]) -> None:
    _, at_the_end = terminal

    assert [line for line in at_the_end if "running:" in line] == []
    assert [line for line in at_the_end if "of 4, about" in line] == []
    assert [line for line in at_the_end if line.startswith("kubehave: broken: suites/test_sample.py::test_fails")]
    assert [line for line in at_the_end if re.fullmatch(r"=+ FAILURES =+", line)]
    assert not [line for line in at_the_end if re.match(r"[.FE]+$|suites/test_sample.py [.FE]", line)]


def test_an_interrupt_takes_the_line_away(tmp_path: Path, stub: StubCluster) -> None:
    sample(tmp_path)
    shown = Terminal(tmp_path, stub.address, "-n", "auto", "--dist", "loadgroup")
    until(lambda: " of 4, about " in shown.plain, shown.process)
    shown.process.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()

    at_the_end = shown.ended()

    assert shown.process.returncode == 2
    assert [line for line in at_the_end if "running:" in line] == []


def test_with_v_pytest_prints_as_it_always_does(tmp_path: Path, stub: StubCluster) -> None:
    sample(tmp_path)
    (tmp_path / "go").touch()

    run = ended(tmp_path, start(tmp_path, stub.address, "-n", "0", "-v"))

    assert "suites/test_sample.py::test_holds PASSED" in run.printed
    assert "kubehave: broken: suites/" not in run.printed
    assert "running:" not in run.printed


def test_a_quiet_run_prints_only_what_does_not_hold(tmp_path: Path, stub: StubCluster) -> None:
    sample(tmp_path)
    process = start(tmp_path, stub.address, "-n", "2", "--dist", "loadgroup", "-q", "-x")
    until((tmp_path / "began").exists, process)
    time.sleep(1)
    (tmp_path / "go").touch()

    run = ended(tmp_path, process)

    assert run.code == 1
    assert "kubehave: broken: suites/test_sample.py::test_fails: assert 2 == 3\n" in run.printed
    assert "running:" not in run.printed


def test_a_signal_before_the_tests_ends_nothing(tmp_path: Path) -> None:
    write_sample(tmp_path, RUN, {})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", "--patience", "0.2")
        connection, _ = silent.accept()
        process.send_signal(signal.SIGUSR1)
        run = ended(tmp_path, process)
        connection.close()

    assert run.code == 11
    assert run.printed.startswith("kubehave: no test runs now\nkubehave: ")
