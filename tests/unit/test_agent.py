"""The agent at the other end of a connection: requests that Python writes and C reads.

The agent is built for this machine and used over pipes, as an SSH server would use it.
"""

import contextlib
import json
import os
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from isobench.model import host_abi
from isobench.payload import build
from isobench.targets.machines import _ssh
from isobench.targets.shared import agent_request
from tests import waiting
from tests.conftest import PROGRAM, SOURCE

AWKWARD = ("two words", "'quotes\"", "$HOME", "*", "-x", "é", "", "a\\b", "semi;colon", "new\nline")
LONGEST = 32768
"""Bytes of the longest message without the NUL after it (request.h)."""


@pytest.fixture(scope="module")
def programs() -> Mapping[str, Path]:
    host = host_abi()
    assert host is not None
    wanted = {name: build.programs([])[name] for name in ("_agent",)}
    built = build.build_all(wanted | {PROGRAM: (SOURCE, False)}, [host], host=host)
    return {payload.program: payload.path for payload in built}


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(programs: Mapping[str, Path]) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [programs["_agent"], *(words or ("once",))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"SECRET": "the agent's own"},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        waiting.killed(process)


Exchange = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def exchange(start: Start) -> Exchange:
    """Return a function that sends bytes, keeps the stream open, and returns how it ended."""

    def send(message: bytes, *words: str) -> tuple[int, bytes, bytes]:
        process = start(*words)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(message)
            process.stdin.flush()
        # Its standard input stays open: its end would mean that the client has hung up.
        out, err = waiting.outputs(process)
        return process.wait(20), out, err

    return send


def contract(
    programs: Mapping[str, Path], *words: str, environment: Mapping[str, str] | None = None
) -> bytes:
    return agent_request.framed([str(programs[PROGRAM]), *words], environment or {})


def unquoted(stdout: bytes) -> list[str]:
    return [json.loads(line).encode("latin-1").decode() for line in stdout.splitlines()]


def test_arguments_arrive_as_sent(exchange: Exchange, programs: Mapping[str, Path]) -> None:
    code, out, err = exchange(contract(programs, "say", *AWKWARD))
    assert (code, unquoted(out), err) == (0, list(AWKWARD), b"")


def test_a_login_shell_ignores_its_command(
    exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    code, out, _ = exchange(contract(programs, "say", "hello"), "-c", "rm -rf nothing; exit 9")
    assert (code, unquoted(out)) == (0, ["hello"])


def test_the_largest_number_of_arguments_and_variables_arrives(
    exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    many = [f"number {n}" for n in range(255)]
    variables = {f"V{n}": "x" for n in range(255)}
    code, out, _ = exchange(contract(programs, "say", *many[:253], environment=variables))
    assert (code, unquoted(out)) == (0, many[:253])


def test_the_environment_is_what_was_sent_without_the_agents_own(
    exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    sent = {"ISOBENCH_BLOCK": "with = and spaces é", "EMPTY": ""}
    for name, value in {**sent, "SECRET": None, "PATH": None}.items():
        _, out, _ = exchange(contract(programs, "see", name, environment=sent))
        assert unquoted(out.replace(b"null", b'"\\u0000"')) == ["\0" if value is None else value]


@pytest.mark.parametrize("code", [0, 1, 42, 127, 255])
def test_exit_codes_and_both_streams_are_returned(
    code: int, exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    assert exchange(contract(programs, "end", str(code))) == (code, b"out\n", b"err\n")


def test_a_signal_is_reported_as_shells_do(start: Start, programs: Mapping[str, Path]) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        process = start()
        token = secrets.token_hex(8)
        send(process, contract(programs, "linger", token))
        # Searched before one of them is killed: the other one ends with it.
        (child,) = [found for found in wait_for(token, 2) if found.ppid() == process.pid]
        child.send_signal(number)
        assert process.wait(20) == 128 + number
        assert agent_request.exit_code(process.returncode) == -number
        assert wait_for(token, 0) == []


def test_a_missing_program_has_exit_code_127(exchange: Exchange) -> None:
    assert exchange(agent_request.framed(["/nowhere/program"], {}))[0] == 127


def test_the_null_request_ends_at_once(exchange: Exchange) -> None:
    assert exchange(agent_request.NULL) == (0, b"", b"")


def test_the_program_does_not_read_the_agents_input(
    exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    code, out, _ = exchange(agent_request.framed(["/bin/cat"], {}) + b"meant for nobody")
    assert (code, out) == (0, b"")


def send(process: subprocess.Popen[bytes], message: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(message)
    process.stdin.flush()


def wait_for(token: str, count: int) -> Sequence[psutil.Process]:
    """Wait until `count` processes have the token among their arguments."""
    end = time.monotonic() + 20
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and token in process.cmdline():
                    found.append(process)
        if len(found) == count:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_everything_dies_when_the_client_hangs_up(
    start: Start, programs: Mapping[str, Path]
) -> None:
    process, token = start(), secrets.token_hex(8)
    # A shell in between, and children that have left their session: grandchildren, orphans.
    linger = f"{programs[PROGRAM]} linger {token}"
    script = f"setsid {linger} & (setsid {linger} &) ; {linger}"
    send(process, agent_request.framed(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]}))
    wait_for(token, 6)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 137
    assert wait_for(token, 0) == []


def test_orphans_die_when_their_program_has_ended(
    exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    token = secrets.token_hex(8)
    linger = f"{programs[PROGRAM]} linger {token}"
    script = f"setsid {linger} >/dev/null 2>&1 & exit 5"
    code, _, _ = exchange(
        agent_request.framed(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]})
    )
    assert code == 5
    assert wait_for(token, 0) == []


def framed(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def counts(arguments: int, variables: int) -> bytes:
    return struct.pack("<II", arguments, variables)


@pytest.mark.parametrize(
    "message",
    [
        framed(b""),
        framed(b"1234567"),
        framed(counts(1, 0)),  # and no string
        framed(counts(3, 0) + b"/bin/echo\0two\0"),  # one is missing
        framed(counts(1, 2) + b"/bin/echo\0A=1\0"),
        framed(counts(501, 0) + b"/bin/echo\0" * 501),
        framed(counts(1, 501) + b"/bin/echo\0" + b"A=1\0" * 501),
        framed(counts(300, 300) + b"/bin/echo\0" * 600),
        framed(counts(0xFFFFFFFF, 0xFFFFFFFF) + b"/bin/echo\0"),
        framed(counts(0x80000000, 0x80000000) + b"/bin/echo\0"),
        struct.pack("<I", LONGEST + 1),
        struct.pack("<I", 0xFFFFFFFF) + b"x" * 70000,
        b"SSH-2.0-garbage\r\n" + bytes(range(256)),
    ],
)
def test_a_malformed_request_is_refused_and_executes_nothing(
    message: bytes, exchange: Exchange
) -> None:
    code, out, err = exchange(message)
    assert (code, out, err) == (125, b"", b"")


def test_an_incomplete_request_is_refused(start: Start) -> None:
    whole = framed(counts(1, 0) + b"/bin/echo\0")
    for length in range(len(whole)):
        out, err = (process := start()).communicate(whole[:length], timeout=20)
        assert (process.returncode, out, err) == (125, b"", b"")


def test_the_longest_request_is_accepted_and_one_byte_more_is_refused(
    exchange: Exchange, programs: Mapping[str, Path]
) -> None:
    rest = LONGEST - len(contract(programs, "say", "")) + 4
    code, out, _ = exchange(contract(programs, "say", "x" * rest))
    assert (code, len(out)) == (0, rest + 3)
    assert exchange(contract(programs, "say", "x" * (rest + 1)))[0] == 125


def test_a_last_string_without_its_nul_ends_with_the_message(exchange: Exchange) -> None:
    code, out, _ = exchange(framed(counts(2, 0) + b"/bin/echo\0unended"))
    assert (code, out) == (0, b"unended\n")


# ---- keys ----------------------------------------------------------------------------------------


def test_a_key_is_readable_by_dropbear_and_by_openssh() -> None:
    key = _ssh.new_key()
    parts, rest = [], key.dropbear
    while rest:
        (length,) = struct.unpack_from(">I", rest)
        parts.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    kind, both = parts
    assert kind == b"ssh-ed25519"
    assert len(both) == 64
    assert both[:32] == key.seed
    assert both[32:] == key.private.asbytes()[-32:]
    assert key.line.startswith("ssh-ed25519 AAAA")
    assert "\n" not in key.line
    assert key.pem.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert _ssh.new_key().seed != key.seed


@pytest.mark.parametrize(
    ("reported", "meaning"),
    [(0, 0), (1, 1), (127, 127), (128, 128), (137, -9), (143, -15), (255, 255)],
)
def test_an_exit_code_above_128_is_a_signal(reported: int, meaning: int) -> None:
    assert agent_request.exit_code(reported) == meaning
