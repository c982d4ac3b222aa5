"""Sessions: what commands in an open shell print and return, and what becomes of a shell that is lost."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from kubernetes.stream.ws_client import WSClient  # noqa: TID253
from websocket import WebSocketConnectionClosedException

from fixtures import session
from fixtures.api import ApiRefusal, PodStreams
from fixtures.session import SHELL, ProcessStreams, Sessions
from machine.output import Output

#: How an exec ended: by a status, by nothing ({}), or by an exception of the connection.
End = dict[str, Any] | Exception

#: Seconds that no command of these tests takes.
LONG = 30


class Here:
    """Shells of this machine: its `sh`, or another one in its place."""

    def __init__(self, shell: str) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self._command = [word.replace("exec sh", f"exec {shell}") for word in SHELL]
        self.sessions = Sessions(self._connect)

    def _connect(self, _: str) -> ProcessStreams:
        pipe = subprocess.PIPE
        self.processes.append(subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe))
        return ProcessStreams(self.processes[-1])

    def run(self, *command: str, timeout: float = LONG) -> Output:
        """Run a command."""
        return self.sessions.run("here", command, timeout)


@pytest.fixture(params=["sh", "bash"])
def here(request: pytest.FixtureRequest) -> Iterator[Here]:
    shells = Here(request.param)
    yield shells
    shells.sessions.close()
    assert [process.returncode for process in shells.processes if process.returncode is None] == []


# --- what a command prints and returns


def test_stdout_stderr_and_exit_code_are_told_apart(here: Here) -> None:
    assert here.run("sh", "-c", "echo out; echo err >&2; exit 3") == Output("out\n", "err\n", 3)
    assert here.run("true") == Output("", "", 0)


@pytest.mark.parametrize("printed", ["no newline", "\n", "\n\nx\n\n", "a\r\nb", "ü€😀\n", "7.", "\t \\n %d"])
def test_output_is_exact(here: Here, printed: str) -> None:
    print_both = 'printf %s "$1"; printf %s "$1" >&2'

    assert here.run("sh", "-c", print_both, "print", printed) == Output(printed, printed, 0)


def test_bytes_that_are_no_text_are_replaced(here: Here) -> None:
    assert here.run("printf", r"a\377b").stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_large_outputs_are_whole(here: Here) -> None:
    numbers = "".join(f"{number}\n" for number in range(1, 100_001))

    assert here.run("sh", "-c", "seq 100000; seq 100000 >&2") == Output(numbers, numbers, 0)


WORDS = [
    "",
    " ",
    "two  words",
    "'",
    '"',
    "a'b\"c",
    "$HOME `id` $(id)",
    "\\",
    "\n",
    "a\nb\n",
    "*",
    "ü€😀",
    "-n",
    "#",
    "~",
    "a;b|c&",
]


@pytest.mark.parametrize("word", WORDS)
def test_words_arrive_as_they_are(here: Here, word: str) -> None:
    assert here.run("printf", "%s|", word, "next").stdout == f"{word}|next|"


def test_a_killed_command_has_the_shells_exit_code_and_no_message(here: Here) -> None:
    assert here.run("sh", "-c", "kill -9 $$") == Output("", "", 128 + signal.SIGKILL)


def test_a_missing_command_is_named(here: Here) -> None:
    missing = here.run("no-such-command")

    assert missing.code == 127
    assert "no-such-command" in missing.stderr


# --- one command and the next


def test_a_shell_is_opened_once(here: Here) -> None:
    assert here.processes == []

    for _ in range(3):
        here.run("true")

    assert len(here.processes) == 1


def test_a_command_that_reads_its_input_does_not_read_the_next_command(here: Here) -> None:
    assert here.run("cat") == Output("", "", 0)
    assert here.run("echo", "next").stdout == "next\n"


def test_a_command_that_ends_the_shells_way_does_not_end_the_shell(here: Here) -> None:
    assert here.run("sh", "-c", "exit 4").code == 4
    assert here.run("sh", "-c", "cd /; export A=1; exec >/dev/null").code == 0

    assert here.run("sh", "-c", 'echo "$PWD$A"').stdout == f"{Path.cwd()}\n"
    assert len(here.processes) == 1


def test_a_command_has_no_stream_of_the_shell_but_its_own(here: Here) -> None:
    assert here.run("sh", "-c", "echo >&3").code != 0


def test_a_process_in_the_background_does_not_hold_the_command(here: Here, tmp_path: Path) -> None:
    began = time.monotonic()
    started = here.run("sh", "-c", 'sleep 60 & echo $! >"$1"; echo started', "start", str(tmp_path / "pid"))

    assert started == Output("started\n", "", 0)
    assert here.run("kill", (tmp_path / "pid").read_text().strip()).code == 0
    assert time.monotonic() - began < LONG


def test_what_a_process_in_the_background_prints_between_two_commands_is_dropped(here: Here, tmp_path: Path) -> None:
    done = tmp_path / "done"
    here.run("sh", "-c", '(sleep 0.1; echo late; echo late >&2; touch "$1") &', "start", str(done))
    deadline = time.monotonic() + LONG
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert here.run("echo", "next") == Output("next\n", "", 0)


def test_threads_run_commands_at_the_same_time(here: Here, tmp_path: Path) -> None:
    together = Barrier(3)
    meet = 'touch "$1/$2"; until [ -e "$1/0" ] && [ -e "$1/1" ] && [ -e "$1/2" ]; do sleep 0.01; done; echo "$2"'

    def run(number: int) -> str:
        together.wait()
        return here.run("sh", "-c", meet, "meet", str(tmp_path), str(number)).stdout

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(run, range(3))) == ["0\n", "1\n", "2\n"]
    here.run("true")
    assert len(here.processes) == 3


# --- shells that are lost


def test_a_command_that_takes_too_long_takes_its_shell_with_it(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ENDS", 0.1)

    with pytest.raises(TimeoutError, match=r"sleep 3 in here had not ended after 0\.2 s"):
        here.run("sleep", "3", timeout=0.2)

    assert here.processes[0].returncode is not None
    assert here.run("echo", "next").stdout == "next\n"
    assert len(here.processes) == 2


def test_a_shell_that_ended_between_two_commands_is_opened_again(here: Here) -> None:
    here.run("true")
    here.processes[0].kill()
    here.processes[0].wait()

    assert here.run("echo", "again").stdout == "again\n"
    assert len(here.processes) == 2


def test_a_shell_that_ends_during_a_command_is_a_lost_connection(here: Here) -> None:
    here.run("true")

    with pytest.raises(ConnectionError, match=r"the shell in here ended during sh -c .*half"):
        here.run("sh", "-c", 'echo half >&2; kill -9 "$1"', "kill", str(here.processes[0].pid))

    assert here.run("echo", "again").stdout == "again\n"


def test_a_shell_that_does_not_start_says_why() -> None:
    broken = Here("no-such-shell")

    with pytest.raises(ConnectionError, match="the shell in here ended during true"):
        broken.run("true")


def test_a_shell_ends_when_its_standard_input_does(here: Here) -> None:
    here.run("true")

    here.sessions.close()

    assert here.processes[0].returncode == 0


# --- the connection to a Pod


class Socket(WSClient):
    """The official client's WebSocket, connected to a `sh` of this machine.

    `end` is the status with which the API server has ended the exec, or how the connection was lost.
    What the shell writes to stderr arrives `late` looks later than the rest.
    """

    def __init__(self, end: End | None = None, late: int = 0) -> None:
        pipe = subprocess.PIPE
        self.sock, self.end = self, end
        self._channels, self._closed_channels, self.binary = {}, set(), True
        self._process = subprocess.Popen(SHELL, stdin=pipe, stdout=pipe, stderr=pipe)
        self._streams, self._stderr = ProcessStreams(self._process), [b""] * late

    def write_channel(self, channel: int, data: bytes) -> None:
        """Standard input."""
        assert channel == 0
        self._streams.send(data)

    def update(self, timeout: float = 0) -> None:
        """Frames arrive."""
        assert not timeout or not self._channels, "it waits for more before it has read what is there"
        if isinstance(self.end, Exception):
            raise self.end
        if self.end is not None:
            self._channels.update({3: json.dumps(self.end).encode()} if self.end else {})
            return
        stdout, stderr = self._streams.receive(0 if any(self._stderr) else timeout)
        self._stderr.append(stderr)
        self._arrives(1, stdout)
        self._arrives(2, self._stderr.pop(0))

    def _arrives(self, channel: int, data: bytes) -> None:
        if data:
            self._channels[channel] = self._channels.get(channel, b"") + data

    def is_open(self) -> bool:
        """The connection is open."""
        return self.end is None

    def shutdown(self) -> None:
        """The connection is closed."""
        self._streams.close()


ENDED: End = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "137"}]}}
NOT_STARTED: End = {"status": "Failure", "code": 500, "message": "container not found"}
CLOSED, RESET = WebSocketConnectionClosedException("closed"), ssl.SSLEOFError("reset")


def in_pod(*sockets: Socket) -> Sessions:
    """Sessions that get these connections, one after the other."""
    left = iter(sockets)
    return Sessions(lambda _: PodStreams(next(left)))


def test_commands_run_in_a_pod() -> None:
    sessions = in_pod(Socket())

    assert sessions.run("pod", ["sh", "-c", "echo out; echo err >&2; exit 3"], LONG) == Output("out\n", "err\n", 3)
    assert sessions.run("pod", ["echo", "ü"], LONG) == Output("ü\n", "", 0)

    sessions.close()


@pytest.mark.parametrize("late", [1, 2, 3])
def test_what_arrives_from_a_pod_between_two_looks_is_read_at_once(late: int) -> None:
    """The official client reads from the connection whenever it is asked for a channel that is empty."""
    sessions = in_pod(Socket(late=late))

    for word in ("one", "two", "three"):
        assert sessions.run("pod", ["echo", word], LONG) == Output(f"{word}\n", "", 0)

    sessions.close()


@pytest.mark.parametrize("end", [ENDED, NOT_STARTED, CLOSED, RESET, {}])
def test_a_pods_shell_that_ended_between_two_commands_is_opened_again(end: End) -> None:
    first = Socket()
    sessions = in_pod(first, Socket())
    sessions.run("pod", ["true"], LONG)

    first.end = end

    assert sessions.run("pod", ["echo", "again"], LONG).stdout == "again\n"
    sessions.close()


@pytest.mark.parametrize(
    ("end", "error", "why"),
    [
        (ENDED, ConnectionError, "the shell in pod ended during true: exit code 137"),
        (NOT_STARTED, ApiRefusal, "container not found"),
        (CLOSED, ConnectionError, "the shell in pod ended during true: closed"),
        (RESET, ConnectionError, "the shell in pod ended during true: .*reset"),
        ({}, ConnectionError, "the exec stream ended without a status"),
    ],
)
def test_a_pods_shell_that_ends_during_a_command_is_an_error(end: End, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        in_pod(Socket(end)).run("pod", ["true"], LONG)
